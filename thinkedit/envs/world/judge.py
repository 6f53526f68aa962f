"""Grades edits of world pictures exactly, from pixels and the instruction alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from thinkedit.envs.world.instructions import Goal, parse_instruction
from thinkedit.envs.world.scene import Item, Scene
from thinkedit.envs.world.sprites import read_scene
from thinkedit.errors import JudgeError
from thinkedit.plugins import NoOptions
from thinkedit.rewards.judges.base import Judge
from thinkedit.types import RGB, JudgeIdentity, Scores, Verdict

RULES = """\
semantic = max(0, round(10 done - 4 damaged)); quality = max(0, 10 - 4 smudged - 5 noisy)

done, from 0 to 1, by operation:
  recolour  1   the target has the new colour, its old size and shape
            0.2 something else about it changed, or its colour became a wrong one
  remove    1   the target's cell is empty
            0.3 the target is only smudged
  replace   1   the target's cell holds the new colour and shape
            0.5 the target has the new colour but not the new shape
  move      1   the target stands in its new cell and left the old one
            0.4 it left the old one for a wrong cell
  add       1   the new cell holds the new colour and shape
            0.5 it holds something else
damaged: objects other than the target that are gone or changed in size, colour or shape,
  and objects that appeared where none belongs.
smudged: objects under a smudge. noisy: 1 when noise lies over the picture, else 0.
Where an instruction has several right targets, the one that scores best counts."""


class Status(StrEnum):
    """What became of the instruction: done, partly done, something else happened, nothing did."""

    DONE = "done"
    PARTLY = "partly"
    WRONG = "wrong"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Assessment:
    """An edit measured against one goal.

    done: in [0, 1], by `RULES`.
    damaged: source objects harmed without being the target.
    strays: objects that appeared where none belongs.
    shown: what the edited picture has where the goal's result belongs (None: an empty cell).
    """

    goal: Goal
    done: float
    damaged: tuple[Item, ...]
    strays: tuple[Item, ...]
    smudged: int
    noisy: bool
    shown: Item | None

    @property
    def scores(self) -> Scores:
        semantic = max(0, round(10 * self.done - 4 * (len(self.damaged) + len(self.strays))))
        quality = max(0, 10 - 4 * self.smudged - 5 * self.noisy)
        return Scores(float(semantic), float(quality))

    @property
    def status(self) -> Status:
        if self.done == 1:
            return Status.DONE
        if self.done > 0:
            return Status.PARTLY
        return Status.WRONG if self.damaged or self.strays else Status.UNCHANGED


def assess(source: Scene, edited: Scene, goals: tuple[Goal, ...]) -> Assessment:
    """The edit measured against the goal it meets best (the first of equals).

    Args:
        goals: at least one.
    """
    return max(
        (_against(source, edited, goal) for goal in goals),
        key=lambda a: (a.scores.overall, a.scores.semantic, a.done),
    )


def _against(source: Scene, edited: Scene, goal: Goal) -> Assessment:
    target, wanted = goal.target, goal.wanted
    others = [item for item in source.items if item != target]
    damaged = tuple(item for item in others if _look(edited.at(item.cell)) != item.look)
    belongs = {item.cell for item in others} | {item.cell for item in (target, wanted) if item}
    strays = tuple(item for item in edited.items if item.cell not in belongs)
    place = wanted or target
    assert place is not None, "a goal has a target or a result"
    shown = edited.at(place.cell)
    done = _done(goal, edited, shown, strays)
    if goal.operation == "move" and 0 < done < 1:
        astray = next((item for item in strays if target and item.look == target.look), strays[0])
        strays = tuple(item for item in strays if item is not astray)  # the target itself: paid for by `done`
    smudged = sum(item.smudged for item in edited.items)
    return Assessment(goal, done, damaged, strays, smudged, edited.noise > 0, shown)


def _done(goal: Goal, edited: Scene, shown: Item | None, strays: tuple[Item, ...]) -> float:
    """How far the goal is met, by `RULES`."""
    target, wanted = goal.target, goal.wanted
    if wanted is None:
        return 1.0 if shown is None else 0.3 if shown.smudged else 0.0
    hit = shown is not None and (shown.colour, shown.shape) == (wanted.colour, wanted.shape)
    if target is None:
        return 1.0 if hit else 0.5 if shown else 0.0
    same_size = shown is not None and shown.size == wanted.size
    changed = shown is not None and shown.look != target.look
    match goal.operation:
        case "recolour":
            return 1.0 if hit and same_size else 0.2 if changed else 0.0
        case "replace":
            return 1.0 if hit else 0.5 if changed and shown and shown.colour == wanted.colour else 0.0
        case _:
            if edited.at(target.cell) is not None:
                return 0.0
            return 1.0 if hit and same_size else 0.4 if strays else 0.0


def _look(item: Item | None) -> tuple[str, str, str] | None:
    return item.look if item else None


class WorldJudge(Judge):
    """The exact judge of the world; see `RULES`. Reads pixels, so it grades any editor's pictures."""

    Config: ClassVar[type[NoOptions]] = NoOptions
    name = "world"
    revision = "1"
    inline = True

    def __init__(self, config: NoOptions | None = None) -> None:
        del config
        self._id = f"{self.name}@{self.revision}"
        self._rules = hashlib.sha256(RULES.encode()).hexdigest()[:16]

    def identities(self) -> frozenset[JudgeIdentity]:
        return frozenset({(self._id, self._rules)})

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        """Both scores in whole points; `notes` tell status, damage and artefacts.

        Raises:
            JudgeError: the instruction is not of the world or can't be carried out in this
                source, or a picture isn't 96 x 96.
        """
        understood = parse_instruction(instruction)
        if understood is None:
            raise JudgeError(f"the world's judge doesn't understand {instruction!r}; see docs/world.md")
        try:
            before, after = read_scene(source).scene, read_scene(edited).scene
        except ValueError as error:
            raise JudgeError(f"the world's judge can't read a picture: {error}") from error
        goals = understood.goals(before)
        if not goals:
            raise JudgeError(f"{instruction!r} can't be carried out in the source picture")
        found = assess(before, after, goals)
        return Verdict(
            scores=found.scores,
            judge_id=self._id,
            prompt_hash=self._rules,
            notes={
                "status": found.status.value,
                "done": found.done,
                "damaged": [str(item) for item in found.damaged],
                "strays": [str(item) for item in found.strays],
                "smudged": found.smudged,
                "noisy": found.noisy,
            },
        )

"""Scripted thinkers: they see exactly, judge exactly, and differ in what they know of the editor."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Self

from thinkedit import plugins
from thinkedit.envs.editors.procedural import ProceduralEditor, Quirks
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.world.instructions import (
    KEEP_CLAUSES,
    STYLE_CLAUSES,
    VERBS,
    Goal,
    Instruction,
    normalise,
    parse_instruction,
    phrase,
    refer,
)
from thinkedit.envs.world.judge import Assessment, Status, assess
from thinkedit.envs.world.scene import CELLS, Item, Scene, describe
from thinkedit.envs.world.sprites import read_scene
from thinkedit.envs.world.tasks import WorldTasks
from thinkedit.errors import ConfigError, DataError
from thinkedit.types import Critique, Observation, Scores, Task, Verdict

if TYPE_CHECKING:
    from thinkedit.envs.build import Parts


class Expert(ABC):
    """A thinker of the world. Subclasses say how to word a goal.

    Its `<think>` tells the target, what it should become, what the edit shows in that place and whether
    that is right, the others that were harmed, and both pictures (`think`). Its scores are the judge's
    own. It repeats the prompt when both of them reach the protocol's threshold, and otherwise asks for
    the goal that the edit came nearest to.
    """

    def __init__(self, protocol: Protocol | None = None) -> None:
        self._protocol = protocol or Protocol()

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """The expert for a configured environment."""
        return cls(parts.protocol)

    @abstractmethod
    def prompt(self, goal: Goal, current: str, rng: random.Random) -> str:
        """A wording of the goal that differs from the current prompt."""

    def reply(self, observation: Observation, task: Task, verdict: Verdict | None, rng: random.Random) -> str:
        """A complete reply.

        Args:
            verdict: the judge's, of the edit in the observation; None: the expert grades it itself.

        Raises:
            DataError: the task is not of the world, or its picture holds nothing that it asks for.
        """
        instruction = _understood(task.instruction)
        source = read_scene(observation.source).scene
        edited = read_scene(observation.edited).scene
        goals = instruction.goals(source)
        if not goals:
            raise DataError(f"{task.instruction!r} can't be carried out in the source picture")
        found = assess(source, edited, goals)
        scores = verdict.scores if verdict else found.scores
        scores = Scores(round(scores.semantic), round(scores.quality))
        accept = scores.lowest >= self._protocol.accept_at
        answer = observation.prompt if accept else self.prompt(found.goal, observation.prompt, rng)
        critique = Critique(think(instruction, source, edited, found), scores, answer)
        return self._protocol.format_reply(critique, observation.prompt)


class NaiveExpert(Expert):
    """Good practice, ignorant of the editor: names the object, mostly asks to keep the rest.

    Which verb, clause and filler it uses is chance, so its demonstrations hold every wording.
    """

    def prompt(self, goal: Goal, current: str, rng: random.Random) -> str:
        while True:
            reference = ""
            if goal.target:
                reference = refer(goal.target, size=rng.random() < 0.3, place=rng.random() < 0.5)
            text = "please " if rng.random() < 0.2 else ""
            text += phrase(goal, rng.choice(VERBS[goal.operation]), reference)
            if rng.random() < 0.75:
                text += ", " + rng.choice(KEEP_CLAUSES)
            if rng.random() < 0.35:
                text += ", " + rng.choice(STYLE_CLAUSES)
            if normalise(text) != normalise(current):
                return text


class AwareExpert(Expert):
    """Has read the procedural editor's quirks: the upper reference.

    Takes the wording that most likely gives a perfect edit; when that is the current prompt,
    which failed, the next best.
    """

    def __init__(self, protocol: Protocol | None = None, quirks: Quirks | None = None) -> None:
        super().__init__(protocol)
        self._quirks = quirks or Quirks()

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """
        Raises:
            ConfigError: the editor is not the procedural one, so there are no quirks to know.
        """
        editor = parts.config.editor
        if editor.name != ProceduralEditor.name:
            raise ConfigError(
                f"only the procedural editor's quirks can be known, not those of {editor.name!r}"
            )
        return cls(parts.protocol, plugins.typed(Quirks, editor.options, where="editor.options"))

    def prompt(self, goal: Goal, current: str, rng: random.Random) -> str:
        wordings = product(
            VERBS[goal.operation], (False, True), (False, True), (None, *self._quirks.keep_clauses)
        )
        ranked = sorted((self._worded(goal, *wording) for wording in wordings), key=lambda w: -w[0])
        return next(text for _, text in ranked if normalise(text) != normalise(current))

    def _worded(
        self, goal: Goal, verb: str, size: bool, place: bool, clause: str | None
    ) -> tuple[float, str]:
        """The chance that a wording gives a perfect edit, and the wording."""
        quirks = self._quirks
        text = phrase(goal, verb, refer(goal.target, size=size, place=place) if goal.target else "")
        chance = quirks.verbs[verb] * (1 - (quirks.keep_clauses[clause] if clause else quirks.harm))
        if goal.target:
            chance *= quirks.find_by_place if place else quirks.find_by_name
        if clause:
            text += ", " + clause
        if len(text.split()) > quirks.max_words:
            chance *= 1 - quirks.noise
        return chance, text


EXPERTS: dict[str, type[Expert]] = {"naive_expert": NaiveExpert, "aware_expert": AwareExpert}
"""By the names that commands and configurations know them under."""


def think(instruction: Instruction, source: Scene, edited: Scene, found: Assessment) -> str:
    """What an expert writes between the think tags.

    For example: "compare the star: left big red star. new blue: left big blue star, shows left big red not
    blue star, no; others: blue circle. edit: wrong." and, in a second line, "source: left big red star;
    right small blue circle. edited: left big red star; right small green circle."

    The order and the words help a small pupil. The instruction's own words stand right before the object,
    and nothing of the edited picture before them: otherwise it takes what changed for what should have.
    What the edit shows stands beside what it should, the right word behind each wrong one, so that the two
    are compared word by word; a lone "no" behind both says too little to learn that from. It begins as the
    tiny base is asked and answers, and each of its words is one token of the base (a test holds it to that).
    """
    goal = found.goal
    others = [item.name for item in found.damaged] + [f"new {item.name}" for item in found.strays]
    compare = f"compare {instruction.reference}" if instruction.reference else "compare"
    verdict = "yes" if found.status is Status.DONE else "no"
    return (
        f"{compare}: {_named(goal.target)}. new {instruction.outcome}: {_named(goal.wanted)}, "
        f"shows {_shown(found)}, {verdict}; others: {', '.join(others) or 'none'}. "
        f"edit: {found.status.value}.\nsource: {describe(source)}. edited: {describe(edited)}."
    )


def corpus(rng: random.Random, n: int) -> Iterator[str]:
    """`n` texts in the language of the world for a tokenizer: instructions, prompts, scenes, replies.

    Every word the world can say occurs early, whatever the chance.
    """
    tasks = WorldTasks()
    experts = (NaiveExpert(), AwareExpert())
    editor = ProceduralEditor()
    words = [*CELLS, *KEEP_CLAUSES, *STYLE_CLAUSES, *(verb for verbs in VERBS.values() for verb in verbs)]
    for k in range(n):
        if k == 0:
            yield f"please {', '.join(words)}"
            continue
        task = tasks.task("sft", rng.randrange(2**31))
        edited = editor.edit(task.source, task.instruction, seed=rng.randrange(2**31))
        observation = Observation(
            source=task.source,
            edited=edited,
            instruction=task.instruction,
            prompt=task.instruction,
            turn=0,
            turns_left=1,
        )
        match k % 4:
            case 0:
                yield task.instruction
            case 1:
                yield describe(read_scene(edited).scene)
            case _:
                yield experts[k // 2 % 2].reply(observation, task, None, rng)


def _shown(found: Assessment) -> str:
    """What the edit shows; in an object, behind each wrong word the right one."""
    shown, wanted = found.shown, found.goal.wanted
    if shown is None or wanted is None:
        return _named(shown)
    words = [CELLS[shown.cell], *(["smudged"] if shown.smudged else [])]
    any_size = found.goal.operation in ("add", "replace")  # as the judge has it
    for aspect in ("size", "colour", "shape"):
        said, right = getattr(shown, aspect), getattr(wanted, aspect)
        wrong = said != right and not (aspect == "size" and any_size)
        words += [said, "not", right] if wrong else [said]
    return " ".join(words)


def _named(item: Item | None) -> str:
    return str(item) if item else "nothing"


def _understood(text: str) -> Instruction:
    instruction = parse_instruction(text)
    if instruction is None:
        raise DataError(f"the experts know tasks of the world only, not {text!r}")
    return instruction

"""How well an editor edits held-out pictures, by the world's exact judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from thinkedit.actors.small_diffusion.samples import Trial
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.envs.world.sprites import SceneReading, read_scene
from thinkedit.types import RGB, SCORE_MAX, Verdict


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edit:
    """A trial, what the editor made of it, and the judge's verdict.

    reading: what the world sees in the picture, and how surely.
    """

    trial: Trial
    edited: RGB
    verdict: Verdict
    reading: SceneReading

    @property
    def done(self) -> bool:
        """Whether the goal is met exactly, whatever else happened."""
        return bool(self.verdict.notes["done"] == 1)

    @property
    def perfect(self) -> bool:
        return self.verdict.scores.lowest == SCORE_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of some edits: shares done, perfect, read exactly and read as noisy, each in [0, 1]; mean scores
    in [0, 10]; mean residual of the reading in [0, 255]."""

    count: int
    done: float
    perfect: float
    semantic: float
    quality: float
    overall: float
    exact: float
    noisy: float
    residual: float

    @classmethod
    def of(cls, edits: Sequence[Edit]) -> Figures:
        """
        Args:
            edits: at least one.
        """
        scores = [edit.verdict.scores for edit in edits]
        return cls(
            count=len(edits),
            done=fmean(edit.done for edit in edits),
            perfect=fmean(edit.perfect for edit in edits),
            semantic=fmean(score.semantic for score in scores),
            quality=fmean(score.quality for score in scores),
            overall=fmean(score.overall for score in scores),
            exact=fmean(edit.reading.exact for edit in edits),
            noisy=fmean(edit.reading.noisy for edit in edits),
            residual=fmean(edit.reading.residual for edit in edits),
        )


def make_edits(editor: Editor, trials: Iterable[Trial], *, first_seed: int = 0) -> list[Edit]:
    """Each trial edited once and judged against its instruction; seeds count up from `first_seed`."""
    judge = WorldJudge()
    edits = []
    for seed, trial in enumerate(trials, first_seed):
        edited = editor.edit(trial.source, trial.prompt, seed=seed)
        verdict = judge.judge(trial.source, edited, trial.instruction)
        edits.append(Edit(trial=trial, edited=edited, verdict=verdict, reading=read_scene(edited)))
    return edits


def by(field: str, edits: Iterable[Edit]) -> dict[str, Figures]:
    """Figures by a field of the trials, "operation" or "reference", sorted by its values."""
    groups: defaultdict[str, list[Edit]] = defaultdict(list)
    for edit in edits:
        groups[getattr(edit.trial, field)].append(edit)
    return {name: Figures.of(group) for name, group in sorted(groups.items())}


def swayed(some: Sequence[Edit], others: Sequence[Edit]) -> float:
    """The share, in [0, 1], of the same trials under other seeds that the judge scores otherwise."""
    return fmean(one.verdict.scores != other.verdict.scores for one, other in zip(some, others, strict=True))

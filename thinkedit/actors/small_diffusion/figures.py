"""How well an editor edits held-out pictures, by the world's exact judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from thinkedit.actors.small_diffusion.samples import Trial
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.types import RGB, SCORE_MAX, Verdict


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edit:
    """A trial, what the editor made of it, and the judge's verdict."""

    trial: Trial
    edited: RGB
    verdict: Verdict

    @property
    def done(self) -> bool:
        """Whether the goal is met exactly, whatever else happened."""
        return bool(self.verdict.notes["done"] == 1)

    @property
    def perfect(self) -> bool:
        return self.verdict.scores.lowest == SCORE_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of some edits: shares done and perfect in [0, 1]; mean scores in [0, 10]."""

    count: int
    done: float
    perfect: float
    semantic: float
    quality: float
    overall: float

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
        )


def make_edits(editor: Editor, trials: Iterable[Trial]) -> list[Edit]:
    """Each trial edited once, with its number as the seed, and judged against its instruction."""
    judge = WorldJudge()
    edits = []
    for seed, trial in enumerate(trials):
        edited = editor.edit(trial.source, trial.prompt, seed=seed)
        verdict = judge.judge(trial.source, edited, trial.instruction)
        edits.append(Edit(trial=trial, edited=edited, verdict=verdict))
    return edits


def by(field: str, edits: Iterable[Edit]) -> dict[str, Figures]:
    """Figures by a field of the trials, "operation" or "asked", sorted by its values."""
    groups: defaultdict[str, list[Edit]] = defaultdict(list)
    for edit in edits:
        groups[getattr(edit.trial, field)].append(edit)
    return {name: Figures.of(group) for name, group in sorted(groups.items())}

"""What the rules over many trajectories need to know of each: a row of the index."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import floor
from statistics import fmean
from typing import NamedTuple

from thinkedit.data.formats.trajectories import Trajectory, overalls
from thinkedit.types import SCORE_MAX

LEVELS = range(int(SCORE_MAX) + 1)


class Summary(NamedTuple):
    """A truncated trajectory in a row.

    n: its number in reading order. best: O of its last edit, its highest. lowest: least O of its
    edits. variance: population variance of O over them. sft_steps: samples that sanity let pass.
    place: its place in every draw, from the seed and its id alone. fate: what
    became of it; None: nothing yet.
    """

    n: int
    trajectory_id: str
    source: str
    pair: str
    task_type: str
    best: float
    lowest: float
    variance: float
    steps: int
    sft_steps: int
    place: str
    fate: str | None = None

    @property
    def level(self) -> int:
        """O of the last edit, rounded half up: 0 to 10."""
        return floor(self.best + 0.5)

    @property
    def cell(self) -> tuple[str, int]:
        return self.task_type, self.level


def summary(trajectory: Trajectory, *, n: int, source: str, sft_steps: int, seed: int) -> Summary:
    """The row of a truncated trajectory.

    Args:
        source: hash of the source image's bytes.
    """
    scores = overalls(trajectory)
    return Summary(
        n=n,
        trajectory_id=trajectory.trajectory_id,
        source=source,
        pair=pair_key(source, trajectory.instruction),
        task_type=trajectory.task_type,
        best=scores[-1],
        lowest=min(scores),
        variance=variance(scores),
        steps=len(scores),
        sft_steps=sft_steps,
        place=_hash(f"{seed}/{trajectory.trajectory_id}"),
    )


def variance(scores: Sequence[float]) -> float:
    """Population variance, to nine decimals so that equal spreads are equal numbers."""
    mean = fmean(scores)
    return round(fmean((score - mean) ** 2 for score in scores), 9)


def pair_key(source: str, instruction: str) -> str:
    """Equal for equal sources and instructions; white space of the latter doesn't count.

    Case does: a sign that says STOP is another edit than one that says stop.
    """
    return _hash(f"{source}/{' '.join(instruction.split())}")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

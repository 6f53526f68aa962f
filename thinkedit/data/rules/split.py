"""Which kept trajectories go to RL and which to SFT.

RL learns from what an edit's prompt can change: trajectories whose scores vary. SFT learns from
stable ones, or from those that are good throughout. No trajectory and no source image is in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import attrgetter

from thinkedit.data.rules.fates import Fate
from thinkedit.data.rules.summaries import Summary

BY_VARIANCE = "variance DESC, place"

BY_SOURCE = "source, fate IS NULL, n"
"""By source image; within one the RL rows first."""

RL_ORDER = "task_type, level, variance DESC, place"
"""By cell; within one the most varied first."""

SFT_ORDER = "task_type, level, (lowest >= :good_at) DESC, variance, place"
"""By cell; within one the good ones first, then the most stable."""


def threshold(rows: Iterable[Summary], candidates: int) -> float:
    """theta: the variance above which about `candidates` trajectories lie; 0 when there are fewer.

    Args:
        rows: in `BY_VARIANCE`.

    Returns:
        The variance of the first row that is no candidate. Only a greater one makes a candidate, so
        equal variances at the edge are all left out, and trajectories without variance always are.
    """
    edge = next(islice(rows, candidates, None), None)
    return edge.variance if edge is not None else 0.0


def sharing_a_source(rows: Iterable[Summary]) -> Iterator[Summary]:
    """The undecided rows whose source image is also that of an RL row.

    Args:
        rows: RL rows and undecided ones, in `BY_SOURCE`.
    """
    for _, same in groupby(rows, key=attrgetter("source")):
        if next(same).fate == Fate.RL:
            yield from (row for row in same if row.fate is None)


def sft_refusal(row: Summary, *, theta: float, good_at: float) -> Fate | None:
    """Why SFT can't take a row that is not in RL; None when it can.

    Args:
        good_at: with every O at or above it a trajectory may vary by more than `theta`.
    """
    if not row.sft_steps:
        return Fate.NO_SFT_STEP
    return Fate.UNSTABLE if row.variance > theta and row.lowest < good_at else None

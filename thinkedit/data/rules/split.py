"""Which kept trajectories go to RL and which to SFT.

RL learns from what an edit's prompt can change: trajectories whose scores vary. SFT learns from
stable ones, or from those that are good throughout. No trajectory and no source image is in both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby, islice, takewhile
from operator import attrgetter

from thinkedit.data.rules.fates import Fate
from thinkedit.data.rules.summaries import Summary

BY_VARIANCE = "variance DESC, place"
"""The most varied first, equals in the seed's order."""

BY_SOURCE = "source, fate IS NULL, n"
"""By source image; within one the RL rows first."""

RL_ORDER = "task_type, level, variance DESC, place"
"""By cell; within one the most varied first."""

SFT_ORDER = "task_type, level, (lowest >= :good_at) DESC, variance, place"
"""By cell; within one the good ones first, then the most stable."""


def threshold(rows: Iterable[Summary], pool: int) -> float:
    """theta: the least variance among the `pool` most varied trajectories, so that as many reach it.

    Trajectories without variance never count: where fewer have any, theta is the least that they have.

    Args:
        rows: in `BY_VARIANCE`.

    Returns:
        0 where none varies; for a pool of none the greatest variance, above which there is nothing.
    """
    last = deque(islice(_varied(rows), max(pool, 1)), maxlen=1)
    return last[0].variance if last else 0.0


def candidates(rows: Iterable[Summary], theta: float, pool: int | None) -> Iterator[Summary]:
    """The rows that vary by theta or more, and at all; of those at theta the first ones fill the pool.

    Args:
        rows: in `BY_VARIANCE`.
        pool: so many at most; None: all.
    """
    return islice(takewhile(lambda row: row.variance >= theta, _varied(rows)), pool)


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


def _varied(rows: Iterable[Summary]) -> Iterator[Summary]:
    return takewhile(lambda row: row.variance > 0, rows)

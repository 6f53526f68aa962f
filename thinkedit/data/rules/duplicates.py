"""Of several trajectories of one source image and instruction the best one stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import attrgetter

from thinkedit.data.rules.summaries import Summary

ORDER = "pair, best DESC, steps, trajectory_id"
"""By pair; within one the best last edit first, then the shortest, then by id."""


def duplicates(rows: Iterable[Summary]) -> Iterator[Summary]:
    """All but the first row of each pair.

    Args:
        rows: in `ORDER`.
    """
    for _, same in groupby(rows, key=attrgetter("pair")):
        yield from islice(same, 1, None)

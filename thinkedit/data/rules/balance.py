"""Two-way balance: no cell of task type and score level may hold more than a common cap."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter

from thinkedit.data.rules.summaries import Summary

Cell = tuple[str, int]

ORDER = "task_type, level, place"
"""By cell; within one in the seed's order."""


def caps(counts: Mapping[Cell, int], target: int, seed: int) -> dict[Cell, int]:
    """How many each cell may keep, so that exactly `target` are kept (all, if there are no more).

    Every cell is cut to one height, the largest at which no more than `target` are left; the few
    that are then still missing go, one each, to cells that were cut, in an order drawn from `seed`.
    """
    if target >= sum(counts.values()):
        return dict(counts)
    height = _height(counts, target)
    kept = {cell: min(count, height) for cell, count in counts.items()}
    missing = target - sum(kept.values())
    cut = sorted((cell for cell in counts if counts[cell] > height), key=lambda cell: _draw(seed, cell))
    for cell in cut[:missing]:
        kept[cell] += 1
    return kept


def filled(rows: Iterable[Summary], allowed: Mapping[Cell, int]) -> Iterator[tuple[Summary, bool]]:
    """Each row, and whether its cell still has room for it.

    Args:
        rows: grouped by cell; within one, those to keep first.
        allowed: how many of each cell; of one that it lacks, none.
    """
    for cell, same in groupby(rows, key=attrgetter("cell")):
        for place, row in enumerate(same):
            yield row, place < allowed.get(cell, 0)


def _height(counts: Mapping[Cell, int], target: int) -> int:
    """The largest height at which the cells together hold no more than `target`."""
    of_size = sorted(Counter(counts.values()).items())
    cells, below = len(counts), 0
    for size, number in of_size:
        if below + cells * size > target:
            return (target - below) // cells
        below += size * number
        cells -= number
    return of_size[-1][0] if of_size else 0


def _draw(seed: int, cell: Cell) -> bytes:
    return hashlib.blake2b(f"{seed}/{cell[0]}/{cell[1]}".encode(), digest_size=8).digest()

"""The figures of a build: what came in, what became of it, what the sets hold. All counts and sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import floor
from typing import Any

from thinkedit.data.formats.records import Record
from thinkedit.data.formats.trajectories import Trajectory, overalls
from thinkedit.data.rules.balance import Cell
from thinkedit.data.rules.fates import Fault
from thinkedit.data.rules.summaries import LEVELS, Summary
from thinkedit.data.select import Selection

VARIANCE_BINS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Lower edges, in squared score points; the last bin is open."""


@dataclass(slots=True)
class Histogram:
    """Counts of O by level (rounded half up, 0 to 10), and their sum in billionths.

    O has nine decimals, so that the sum is exact and the same in any order.
    """

    counts: list[int] = field(default_factory=lambda: [0] * len(LEVELS))
    billionths: int = 0

    def add(self, overall: float) -> None:
        self.counts[floor(overall + 0.5)] += 1
        self.billionths += round(overall * 1e9)

    @property
    def n(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        return self.billionths / self.n / 1e9 if self.n else None


@dataclass(slots=True)
class Figures:
    """Filled while a build runs.

    images: edits read; graded: of them with a score.
    overall: "all" graded edits that were read, "first" and "best" edit of the kept trajectories,
        and of the records of each set.
    variance: trajectories that were kept, by bin.
    steps: kept trajectories by number of edits.
    faults: samples that sanity left out of SFT, by reason.
    records: written, by set and kind.
    """

    trajectories: int = 0
    images: int = 0
    graded: int = 0
    overall: dict[str, Histogram] = field(default_factory=dict)
    variance: list[int] = field(default_factory=lambda: [0] * len(VARIANCE_BINS))
    steps: Counter[int] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    fates: Mapping[str, int] = field(default_factory=dict)
    records: Counter[str] = field(default_factory=Counter)
    selection: Selection | None = None

    def saw(self, trajectory: Trajectory) -> None:
        """Count a trajectory as it was read."""
        scores = overalls(trajectory)
        self.trajectories += 1
        self.images += len(trajectory.steps)
        self.graded += len(scores)
        every = self._histogram("all")
        for score in scores:
            every.add(score)

    def kept(self, trajectory: Trajectory, row: Summary) -> None:
        """Count a trajectory that the filter kept."""
        scores = overalls(trajectory)
        self._histogram("first").add(scores[0])
        self._histogram("best").add(scores[-1])
        self.steps[len(scores)] += 1
        self.variance[sum(row.variance >= edge for edge in VARIANCE_BINS) - 1] += 1

    def wrote(self, record: Record) -> None:
        """Count a record."""
        self._histogram(str(record.split)).add(record.score.overall)
        self.records[f"{record.split}/{record.kind or 'state'}"] += 1

    def plain(self) -> dict[str, Any]:
        """As JSON: cells as nested tables, task type to a list over the levels 0 to 10."""
        assert self.selection is not None, "the build has not come to the selection"
        selection = {
            name: table(value) if isinstance(value, dict) else value
            for name, value in asdict(self.selection).items()
        }
        return {
            "schema": 1,
            "trajectories": self.trajectories,
            "images": self.images,
            "graded": self.graded,
            "fates": dict(sorted(self.fates.items())),
            "faults": {str(name): count for name, count in sorted(self.faults.items())},
            "records": dict(sorted(self.records.items())),
            "steps": {str(steps): count for steps, count in sorted(self.steps.items())},
            "variance": {"edges": list(VARIANCE_BINS), "counts": self.variance},
            "overall": {
                name: {"counts": histogram.counts, "mean": histogram.mean, "n": histogram.n}
                for name, histogram in sorted(self.overall.items())
            },
            "selection": selection,
        }

    def _histogram(self, name: str) -> Histogram:
        return self.overall.setdefault(name, Histogram())


def table(cells: Mapping[Cell, int]) -> dict[str, list[int]]:
    """Counts by task type, each a list over the levels."""
    tasks = sorted({task for task, _ in cells})
    return {task: [cells.get((task, level), 0) for level in LEVELS] for task in tasks}

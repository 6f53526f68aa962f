"""Grades of a benchmark's items from marks written down in a test."""

from __future__ import annotations

from collections.abc import Mapping

from thinkedit.evals.benchmarks.base import Benchmark
from thinkedit.evals.benchmarks.figures import Graded, Status, TableFigures, tabulate


def figures(benchmark: Benchmark, marks: Mapping[str, Mapping[str, float]], table: str) -> TableFigures:
    """A table when these items got these marks and no other item has a result."""
    unsupported = {item.id for item in benchmark.items if item.unsupported}
    grades = {
        item.id: Graded(status=Status.JUDGED, read=marks[item.id])
        if item.id in marks
        else Graded(status=Status.UNSUPPORTED if item.id in unsupported else Status.MISSING)
        for item in benchmark.items
    }
    found = tabulate(benchmark, grades, resamples=200, seed=0)
    return next(one for one in found if one.table.key == table)


def values(found: TableFigures) -> dict[str, float]:
    """The means by column, of columns that have any, withheld or not."""
    return {figure.name: figure.interval.mean for figure in found.figures if figure.interval is not None}

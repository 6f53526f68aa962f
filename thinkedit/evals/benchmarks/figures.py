"""From raw replies to figures with their coverage. Reads the replies anew each time; asks nobody."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from thinkedit.evals.benchmarks import store
from thinkedit.evals.benchmarks.base import Ask, Benchmark, Column, Item, Marks, Table
from thinkedit.evals.benchmarks.store import Row
from thinkedit.evals.stats import Interval, strata_interval


class Status(StrEnum):
    """How far an item came at one turn. Only JUDGED counts in a figure."""

    JUDGED = "judged"
    PARSE_FAILED = "parse_failed"  # a reply that does not hold the marks it should
    REFUSED = "refused"  # the judge would not answer
    UNANSWERED = "unanswered"  # the judge could not be asked
    MISSING = "missing"  # no result was made, or what lies there is no picture
    UNSUPPORTED = "unsupported"  # needs several input pictures, and our editors take one


_FAILED = {store.UNANSWERED: Status.UNANSWERED, store.UNREADABLE: Status.PARSE_FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One item at one turn.

    read: the marks that could be read, all of them when judged. faults: by metric, or of the "result".
    """

    status: Status
    read: Marks = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def marks(self) -> Marks:
        """All marks of the item; empty unless it is judged."""
        return self.read if self.status is Status.JUDGED else {}

    def marks_for(self, column: Column) -> Marks:
        """What a column counts; empty when the item has no part in it."""
        if not column.mark:
            return self.marks
        return self.read if column.mark in self.read else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Items of a table by how far they came. Every item but the unsupported ones is expected."""

    n_expected: int
    n_generated: int
    n_judged: int
    n_parse_failed: int
    n_refused: int
    n_unanswered: int
    n_unsupported: int

    @property
    def complete(self) -> bool:
        """Whether a headline may be given."""
        return 0 < self.n_expected == self.n_judged

    @classmethod
    def of(cls, statuses: Iterable[Status]) -> Coverage:
        count = Counter(statuses)
        expected = sum(count.values()) - count[Status.UNSUPPORTED]
        return cls(
            n_expected=expected,
            n_generated=expected - count[Status.MISSING],
            n_judged=count[Status.JUDGED],
            n_parse_failed=count[Status.PARSE_FAILED],
            n_refused=count[Status.REFUSED],
            n_unanswered=count[Status.UNANSWERED],
            n_unsupported=count[Status.UNSUPPORTED],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One column.

    interval: None when nothing counts in it.
    n_expected, n_judged: items that the column is about, without unsupported ones, and that count in it.
    withheld: a headline without full coverage; the interval is of what there is, and must not be quoted.
    """

    name: str
    n_expected: int
    n_judged: int
    interval: Interval | None
    headline: bool
    withheld: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFigures:
    """A table of one arm at one turn."""

    table: Table
    coverage: Coverage
    figures: Sequence[Figure]

    def headline(self) -> Figure | None:
        return next((figure for figure in self.figures if figure.headline), None)


Grades = dict[str, Graded]
"""By item."""


def grade(benchmark: Benchmark, rows: Iterable[Row]) -> dict[str, Grades]:
    """Every item at every turn that the rows name.

    An item without a row at a turn has no result there: a folder of results tells no more.
    """
    by_turn: dict[str, dict[str, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by_turn[row.turn][row.item][row.metric] = row
    return {
        turn: {item.id: _grade(benchmark, item, found.get(item.id, {})) for item in benchmark.items}
        for turn, found in by_turn.items()
    }


def nothing(benchmark: Benchmark) -> Grades:
    """The grades of a turn without any result."""
    return {item.id: _grade(benchmark, item, {}) for item in benchmark.items}


def tabulate(
    benchmark: Benchmark, grades: Mapping[str, Graded], *, resamples: int, seed: int
) -> list[TableFigures]:
    """Every table of the benchmark, of one arm at one turn."""
    return [_tabulate(benchmark, table, grades, resamples, seed) for table in benchmark.tables()]


def gain(
    benchmark: Benchmark,
    column: Column,
    keep: Table,
    before: Mapping[str, Graded],
    after: Mapping[str, Graded],
    *,
    resamples: int,
    seed: int,
) -> Interval | None:
    """How much a column grew from one set of grades to another, over the items that both judged.

    None without any such item.
    """
    strata: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for item in benchmark.items:
        old, new = before.get(item.id), after.get(item.id)
        if not (keep.keep(item) and column.keep(item) and old and new and old.marks and new.marks):
            continue
        was, now = column.part(item, old.marks), column.part(item, new.marks)
        strata[column.stratum(item)].append((now[0] - was[0], was[1]))
    return strata_interval(list(strata.values()), resamples=resamples, seed=seed) if strata else None


def _tabulate(
    benchmark: Benchmark, table: Table, grades: Mapping[str, Graded], resamples: int, seed: int
) -> TableFigures:
    items = [item for item in benchmark.items if table.keep(item)]
    coverage = Coverage.of(grades[item.id].status for item in items)
    figures = []
    for column in table.columns:
        strata: dict[str, list[tuple[float, float]]] = defaultdict(list)
        about = [item for item in items if column.keep(item)]
        for item in about:
            if marks := grades[item.id].marks_for(column):
                strata[column.stratum(item)].append(column.part(item, marks))
        interval = strata_interval(list(strata.values()), resamples=resamples, seed=seed) if strata else None
        withheld = column.headline and not coverage.complete
        figures.append(
            Figure(
                name=column.name,
                n_expected=sum(grades[item.id].status is not Status.UNSUPPORTED for item in about),
                n_judged=0 if interval is None else interval.n,
                interval=interval,
                headline=column.headline,
                withheld=withheld,
            )
        )
    return TableFigures(table=table, coverage=coverage, figures=figures)


def _grade(benchmark: Benchmark, item: Item, rows: Mapping[str, Row]) -> Graded:
    if not rows:
        return Graded(status=Status.MISSING)
    for row in rows.values():
        if row.lacks in (store.MISSING, store.UNSUPPORTED):
            return Graded(status=Status(row.lacks), faults={"result": row.failure})
    marks: dict[str, float] = {}
    faults: dict[str, str] = {}
    worst = Status.JUDGED
    order = [Status.JUDGED, Status.PARSE_FAILED, Status.REFUSED, Status.UNANSWERED]
    for ask in benchmark.asks(item):
        status, found, fault = _read(ask, rows.get(ask.metric))
        marks |= found
        if fault:
            faults[ask.metric] = fault
            worst = max(worst, status, key=order.index)
    return Graded(status=worst, read=marks, faults=faults)


def _read(ask: Ask, row: Row | None) -> tuple[Status, dict[str, float], str]:
    if row is None:
        return Status.UNANSWERED, {}, "never asked"
    if row.reply is None:
        return _FAILED.get(row.lacks, Status.REFUSED), {}, row.failure
    try:
        return Status.JUDGED, ask.read(row.reply), ""
    except ValueError as error:
        return Status.PARSE_FAILED, {}, str(error)


def as_json(found: TableFigures) -> dict[str, object]:
    """A table of one arm and turn for summary.json. A withheld headline has no value there."""
    columns = {}
    for figure in found.figures:
        interval = None if figure.interval is None else asdict(figure.interval)
        columns[figure.name] = {
            "value": None if figure.withheld else interval,
            "n_judged": figure.n_judged,
            "n_expected": figure.n_expected,
            "headline": figure.headline,
            "withheld": figure.withheld,
            **({"of_what_was_judged": interval} if figure.withheld else {}),
        }
    return {"coverage": {**asdict(found.coverage), "complete": found.coverage.complete}, "columns": columns}

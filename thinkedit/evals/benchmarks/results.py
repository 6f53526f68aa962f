"""Everything one judge said of any number of arms, counted: what all the reports are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from thinkedit.evals.benchmarks.arms import FINAL
from thinkedit.evals.benchmarks.base import Benchmark, Item, Table
from thinkedit.evals.benchmarks.figures import (
    Grades,
    Status,
    TableFigures,
    as_json,
    gain,
    grade,
    nothing,
    tabulate,
)
from thinkedit.evals.benchmarks.store import Row
from thinkedit.evals.stats import Interval

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResults:
    """One arm.

    turns: in order, "final" last. grades, tables: by turn.
    gains: by table, of its headline from turn 1 to the end, over the same items; None where either is
        not given.
    stops: how its items ended, with numbers; empty for results of others.
    failures: why results are missing, by item, as far as this run met it.
    """

    name: str
    about: Mapping[str, Any]
    turns: Sequence[str]
    grades: Mapping[str, Grades]
    tables: Mapping[str, Sequence[TableFigures]]
    gains: Mapping[str, Interval | None]
    stops: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    def table(self, key: str, turn: str = FINAL) -> TableFigures:
        return next(found for found in self.tables[turn] if found.table.key == key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All arms under one judge."""

    benchmark: Benchmark
    judge: str
    judge_id: str
    arms: Sequence[ArmResults]
    notes: Sequence[str]
    models: Sequence[str] = ()  # that answered, as their server names them

    @property
    def judged_by(self) -> str:
        """The judge and the models that answered for it: an alias may be another snapshot by now."""
        return f"{self.judge}, answered by {', '.join(self.models)}" if self.models else self.judge

    @property
    def complete(self) -> bool:
        """Whether every headline of every arm and turn has full coverage."""
        return all(
            found.coverage.complete or not found.coverage.n_expected
            for arm in self.arms
            for tables in arm.tables.values()
            for found in tables
        )

    def as_json(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        return {
            "schema": SCHEMA,
            "benchmark": self.benchmark.name,
            "judge": {"label": self.judge, "id": self.judge_id, "models": list(self.models)},
            "items": len(self.benchmark.items),
            "official_items": self.benchmark.official_size,
            "complete": self.complete,
            "notes": list(self.notes),
            "arms": {
                arm.name: {
                    "about": dict(arm.about),
                    "tables": {
                        table.key: {
                            turn: as_json(found)
                            for turn in arm.turns
                            for found in arm.tables[turn]
                            if found.table.key == table.key
                        }
                        for table in self.benchmark.tables()
                    },
                    "gains": {
                        key: None if interval is None else asdict(interval)
                        for key, interval in arm.gains.items()
                    },
                    "stops": dict(arm.stops),
                    "failures": dict(arm.failures),
                }
                for arm in self.arms
            },
        }


def count(
    benchmark: Benchmark,
    arm: str,
    rows: Iterable[Row],
    turns: Sequence[str],
    *,
    about: Mapping[str, Any],
    stops: Mapping[str, int],
    failures: Mapping[str, str],
    resamples: int,
    seed: int,
) -> ArmResults:
    """The figures of one arm from its raw replies."""
    found = grade(benchmark, rows)
    grades = {turn: found.get(turn) or nothing(benchmark) for turn in turns}
    options = {"resamples": resamples, "seed": seed}
    tables = {turn: tabulate(benchmark, grades[turn], **options) for turn in turns}
    gains: dict[str, Interval | None] = {}
    for table in benchmark.tables():
        gains[table.key] = _gain(benchmark, table, grades, tables, turns, **options)
    return ArmResults(
        name=arm,
        about=about,
        turns=turns,
        grades=grades,
        tables=tables,
        gains=gains,
        stops=stops,
        failures=failures,
    )


def _gain(
    benchmark: Benchmark,
    table: Table,
    grades: Mapping[str, Grades],
    tables: Mapping[str, Sequence[TableFigures]],
    turns: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Interval | None:
    first, last = turns[0], turns[-1]
    column = next((column for column in table.columns if column.headline), None)
    covered = all(
        found.coverage.complete
        for turn in (first, last)
        for found in tables[turn]
        if found.table.key == table.key
    )
    if column is None or first != "1" or len(turns) < 3 or not covered:  # with two turns both are one edit
        return None
    return gain(benchmark, column, table, grades[first], grades[last], resamples=resamples, seed=seed)


def item_gain(benchmark: Benchmark, arm: ArmResults, item: Item, turn: str) -> float | None:
    """How much an item's score grew from turn 1 on; None unless it is judged at both."""
    if arm.turns[0] != "1":
        return None
    before, after = (arm.grades[one][item.id].marks for one in ("1", turn))
    old, new = (benchmark.score(item, marks) if marks else None for marks in (before, after))
    return None if old is None or new is None else new - old


def notes_on(benchmark: Benchmark, arms: Sequence[ArmResults]) -> list[str]:
    """What a reader of the tables must know."""
    notes = []
    size = benchmark.official_size
    if size is not None and len(benchmark.items) != size:
        notes.append(
            f"These are {len(benchmark.items)} items; the published {benchmark.title} has {size}. "
            "Not comparable with published figures."
        )
    for arm in arms:
        graded = arm.grades[arm.turns[-1]].values()
        unsupported = sum(found.status is Status.UNSUPPORTED for found in graded)
        if unsupported:
            notes.append(
                f"{arm.name}: {unsupported} items need several input pictures, which the editor does not "
                "take; they are in no figure."
            )
        if unreadable := arm.stops.get("thinker_unreadable"):
            notes.append(
                f"{arm.name}: what the thinker said of {unreadable} items could not be read; they keep the "
                "edit it was said of."
            )
        mode = (arm.about.get("options") or {}).get("mode", "")
        if "before" in mode:
            notes.append(f"{arm.name}: the first prompt is the thinker's, so turn 1 is not the plain editor.")
        if (arm.about.get("options") or {}).get("select") == "best_judge":
            notes.append(f"{arm.name}: results were chosen by a judge, which is an oracle.")
    return notes

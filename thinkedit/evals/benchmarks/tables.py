"""Results as Markdown, LaTeX and CSV: the same rows three times."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from thinkedit.evals.benchmarks.arms import FINAL
from thinkedit.evals.benchmarks.base import Table
from thinkedit.evals.benchmarks.figures import Coverage, Figure
from thinkedit.evals.benchmarks.published import published
from thinkedit.evals.benchmarks.results import ArmResults, Results, item_gain

MEASURED, PUBLISHED, COUNTED = "measured", "published", "n judged/expected"
WITHHELD = "withheld"
COUNTS = "n expected / generated / judged / parse failed / unsupported"
_MARKED = {MEASURED: "", PUBLISHED: " (published)", COUNTED: " ($n$)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of a table: what was measured or published, or how many items each column is of.

    cells: by column, as text. coverage: of the table; None but for measured rows.
    """

    label: str
    source: str
    cells: Sequence[str]
    coverage: Coverage | None = None

    @property
    def counts(self) -> str:
        return "" if self.coverage is None else counts_of(self.coverage)


def counts_of(coverage: Coverage) -> str:
    """The coverage as text, in the order of `COUNTS`."""
    made = (coverage.n_expected, coverage.n_generated, coverage.n_judged)
    return " / ".join(map(str, (*made, coverage.n_parse_failed, coverage.n_unsupported)))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A table as it is shown."""

    key: str
    title: str
    columns: Sequence[str]
    lines: Sequence[Line]


def views(results: Results) -> list[View]:
    """For each table: the arms, the published rows, and the headline by turn."""
    shown: list[View] = []
    for table in results.benchmark.tables():
        arms = [arm for arm in results.arms if arm.table(table.key, arm.turns[-1]).coverage.n_expected]
        lines = [line for arm in arms for line in _measured(arm, table)]
        rows = published(table.key)
        for row in rows:
            cells = [
                f"{row.values[column.name]:.{table.digits}f}" if column.name in row.values else ""
                for column in table.columns
            ]
            lines.append(Line(label=row.label, source=PUBLISHED, cells=cells))
        columns = [column.name for column in table.columns]
        shown.append(View(key=table.key, title=table.title, columns=columns, lines=lines))
        if by_turn := _by_turn(arms, table):
            shown.append(by_turn)
    return shown


def markdown(results: Results) -> str:
    """A page with every table."""
    parts = [f"# {results.benchmark.title}", f"Judge: {results.judged_by} (`{results.judge_id}`)."]
    if results.notes:
        parts.append("\n".join(f"- {note}" for note in results.notes))
    parts.append(
        "Brackets hold 95 % bootstrap intervals. A headline without full coverage is withheld. "
        "Published rows are the EditThinker paper's: other judges, other days."
    )
    for view in views(results):
        header = ["", "source", *view.columns, COUNTS]
        rows = [[line.label, line.source, *line.cells, line.counts] for line in view.lines]
        parts.append(f"## {view.title}\n\n" + _pipe_table(header, rows))
    return "\n\n".join(parts) + "\n"


def latex(results: Results) -> str:
    """A table environment for each table, the notes below it; needs the package booktabs."""
    parts = []
    notes = " ".join(map(_tex, [f"Judge: {results.judged_by}.", *results.notes]))
    for view in views(results):
        header = ["", *view.columns, "$n$"]
        lines = [
            [
                _tex(line.label) + _MARKED[line.source],
                *map(_tex, line.cells),
                _short_counts(line.coverage),
            ]
            for line in view.lines
        ]
        body = "\n".join("  " + " & ".join(cells) + r" \\" for cells in lines)
        parts.append(
            f"% {results.benchmark.title}, judge {results.judge_id}\n"
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{_tex(view.title)}}}\n"
            f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n\\toprule\n"
            f"  {' & '.join(map(_tex_header, header))} \\\\\n\\midrule\n{body}\n"
            "\\bottomrule\n\\end{tabular}\n"
            f"\\par\\smallskip{{\\footnotesize {notes}\\par}}\n\\end{{table}}"
        )
    return "\n\n".join(parts) + "\n"


def figures_csv(results: Results) -> str:
    """A line for each figure of each arm and turn, and for each published one.

    `n` of the `of` items that a column is about count in it; the other numbers are the whole table's.
    """
    buffer = io.StringIO()
    fields = "table source arm turn column headline withheld value low high n of".split()
    counts = "n_expected n_generated n_judged n_parse_failed n_refused n_unanswered n_unsupported".split()
    writer = csv.DictWriter(buffer, [*fields, *counts], restval="", lineterminator="\n")
    writer.writeheader()
    for arm in results.arms:
        for turn in arm.turns:
            for found in arm.tables[turn]:
                coverage = {name: getattr(found.coverage, name) for name in counts}
                for figure in found.figures:
                    row: dict[str, object] = {
                        "table": found.table.key,
                        "source": MEASURED,
                        "arm": arm.name,
                        "turn": turn,
                    }
                    row |= {"column": figure.name, "headline": figure.headline, "withheld": figure.withheld}
                    row |= {"n": figure.n_judged, "of": figure.n_expected}
                    if figure.interval is not None and not figure.withheld:
                        row["value"] = figure.interval.mean
                        if math.isfinite(figure.interval.low):
                            row |= {"low": figure.interval.low, "high": figure.interval.high}
                    writer.writerow(row | coverage)
    for table in results.benchmark.tables():
        for published_row in published(table.key):
            for name, value in published_row.values.items():
                row = {"table": table.key, "source": PUBLISHED, "arm": published_row.label, "turn": FINAL}
                writer.writerow(row | {"column": name, "value": value})
    return buffer.getvalue()


def items_csv(results: Results) -> str:
    """A line for each item of each arm and turn: status, score, its gain since turn 1, marks, faults."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow("arm turn item kind status score gain marks faults".split())
    benchmark = results.benchmark
    for arm in results.arms:
        for turn in arm.turns:
            for item in benchmark.items:
                found = arm.grades[turn][item.id]
                score = benchmark.score(item, found.marks) if found.marks else None
                marks = "; ".join(f"{name}={mark:g}" for name, mark in found.read.items())
                faults = "; ".join(f"{name}: {fault}" for name, fault in found.faults.items())
                gain = item_gain(benchmark, arm, item, turn)
                numbers = ["" if number is None else f"{number:.4f}" for number in (score, gain)]
                writer.writerow([arm.name, turn, item.id, item.kind, found.status, *numbers, marks, faults])
    return buffer.getvalue()


def shown_figure(figure: Figure, digits: int) -> str:
    """A figure as text: "7.02 [6.85, 7.19]", "withheld", or nothing."""
    if figure.withheld:
        return WITHHELD
    interval = figure.interval
    if interval is None:
        return ""
    text = f"{interval.mean:.{digits}f}"
    if figure.headline and math.isfinite(interval.low):
        text += f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    return text


def _measured(arm: ArmResults, table: Table) -> tuple[Line, Line]:
    """The figures, and how many items each is of."""
    found = arm.table(table.key, arm.turns[-1])
    cells = [shown_figure(figure, table.digits) for figure in found.figures]
    counts = [f"{one.n_judged}/{one.n_expected}" for one in found.figures]
    return (
        Line(label=arm.name, source=MEASURED, cells=cells, coverage=found.coverage),
        Line(label=arm.name, source=COUNTED, cells=counts),
    )


def _by_turn(arms: Sequence[ArmResults], table: Table) -> View | None:
    """The headline after 1, 2, … edits; None where no arm has more than one turn."""
    turns = sorted({turn for arm in arms for turn in arm.turns if turn != FINAL}, key=int)
    if len(turns) < 2:
        return None
    lines = []
    for arm in arms:
        cells = []
        for turn in turns:
            headline = arm.table(table.key, turn).headline() if turn in arm.turns else None
            cells.append("" if headline is None else shown_figure(headline, table.digits))
        growth = arm.gains[table.key]
        cells.append(
            ""
            if growth is None
            else f"{growth.mean:+.{table.digits}f} "
            f"[{growth.low:+.{table.digits}f}, {growth.high:+.{table.digits}f}]"
        )
        if any(cells):
            coverage = arm.table(table.key, arm.turns[-1]).coverage
            lines.append(Line(label=arm.name, source=MEASURED, cells=cells, coverage=coverage))
    if not lines:
        return None
    columns = [*(f"turn {turn}" for turn in turns), "gain from turn 1 to the end"]
    return View(key=f"{table.key}-turns", title=f"{table.title}, by turn", columns=columns, lines=lines)


def _short_counts(coverage: Coverage | None) -> str:
    if coverage is None:
        return ""
    left_out = f" (+{coverage.n_unsupported} unsupported)" if coverage.n_unsupported else ""
    return f"{coverage.n_judged}/{coverage.n_expected}{left_out}"


def _pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _tex_header(text: str) -> str:
    return text if text.startswith("$") else _tex(text)


_TEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _tex(text: str) -> str:
    return text.translate(_TEX)

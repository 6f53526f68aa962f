"""report.html of a data build: where the trajectories went, and what the sets hold, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thinkedit.data.rules.fates import Fate, Fault
from thinkedit.data.rules.summaries import LEVELS

_WIDTH, _HEIGHT, _FOOT, _HEAD = 340, 170, 18, 14

FATES = {
    Fate.UNGRADED: "first edit not graded",
    Fate.SINGLE_EDIT: "only one edit",
    Fate.NOT_IMPROVED: "no later edit as good as the first",
    Fate.BENCHMARK: "source looks like a benchmark image",
    Fate.DUPLICATE: "duplicate of a better one",
    Fate.UNBALANCED: "cell of task and score is full",
    Fate.SOURCE_IN_RL: "source image is in the RL set",
    Fate.NO_SFT_STEP: "no sample left for SFT",
    Fate.UNSTABLE: "too varied for SFT, not good throughout",
    Fate.OVER_QUOTA: "SFT set is full",
    Fate.RL: "taken for RL",
    Fate.SFT: "taken for SFT",
}
"""In the order in which the rules decide."""

FAULTS = {
    Fault.NO_EXPERT: "no expert looked",
    Fault.NOT_FINISHED: "last edit, and the expert wanted more",
    Fault.NO_REASON: "empty reasoning",
    Fault.CONTROL_TOKEN: "control tokens in reasoning or answer",
    Fault.SATISFIED_WITH_POOR: "expert accepts a failure",
    Fault.UNSATISFIED_WITH_PERFECT: "expert wants more of a perfect edit",
    Fault.STOP_IGNORED: "expert accepted, yet another edit came",
    Fault.OTHER_PROMPT: "next edit from another prompt than the expert's",
    Fault.REPEATS: "refinement repeats the prompt",
    Fault.UNSAYABLE: "no well-formed reply says it",
}

_TABLES = {
    "kept": "After the filter",
    "balanced": "Distinct and balanced",
    "rl": "RL set",
    "sft": "SFT set",
}
_HISTOGRAMS = {
    "all": ("All graded edits", "as they were read"),
    "first": ("First edits", "of trajectories that the filter kept"),
    "best": ("Best edits", "of the same trajectories"),
    "sft": ("SFT records", "scores that the critic learns to give"),
    "rl": ("RL records", "scores of the states that episodes start from"),
}


class Bars(NamedTuple):
    title: str
    note: str
    last: str
    svg: Markup


class HeatTable(NamedTuple):
    """Counts by task type (rows) and score level (columns)."""

    title: str
    rows: list[tuple[str, list[int], int]]
    columns: list[int]
    most: int


def write_report(path: Path, report: Mapping[str, Any], title: str) -> None:
    """Write the page.

    Args:
        report: `Figures.plain()`.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("thinkedit.data.report"), PackageLoader("thinkedit.evals.report")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    selection = report["selection"]
    page = environment.get_template("build.html.j2").render(
        title=title,
        report=report,
        selection=selection,
        fates=[(name, report["fates"].get(fate, 0), fate) for fate, name in FATES.items()],
        faults=[(name, report["faults"].get(fault, 0)) for fault, name in FAULTS.items()],
        tables=[heat(name, selection[key]) for key, name in _TABLES.items()],
        levels=list(LEVELS),
        histograms=_histograms(report),
    )
    path.write_text(page, encoding="utf-8")


def heat(title: str, table: Mapping[str, Sequence[int]]) -> HeatTable:
    """A table of `thinkedit.data.figures.table` with its sums."""
    rows = [(task, list(counts), sum(counts)) for task, counts in table.items()]
    columns = [sum(counts[level] for _, counts, _ in rows) for level in LEVELS]
    return HeatTable(title, rows, columns, max((max(counts) for _, counts, _ in rows), default=0))


def _histograms(report: Mapping[str, Any]) -> list[Bars]:
    shown = []
    for name, (title, note) in _HISTOGRAMS.items():
        histogram = report["overall"].get(name)
        if histogram and histogram["n"]:
            svg = bars(histogram["counts"], [str(level) for level in LEVELS])
            shown.append(Bars(title, note, f"{histogram['mean']:.2f}", svg))
    edges = report["variance"]["edges"]
    variance = bars(report["variance"]["counts"], [f"{edge:g}+" for edge in edges])
    theta = f"at least {report['selection']['theta']:.3g} for RL"
    shown.append(Bars("Variance of O", f"within kept trajectories; {theta}", "", variance))
    steps = report["steps"]
    if steps:
        order = sorted(steps, key=int)
        shown.append(
            Bars("Edits", "of kept trajectories, up to the best", "", bars([steps[n] for n in order], order))
        )
    return shown


def bars(counts: Sequence[int], labels: Sequence[str]) -> Markup:
    """A bar chart with the count on each bar."""
    most = max(counts, default=0) or 1
    step = _WIDTH / len(counts)
    room = _HEIGHT - _FOOT - _HEAD
    parts = []
    for i, (count, label) in enumerate(zip(counts, labels, strict=True)):
        height = count / most * room
        middle, top = (i + 0.5) * step, _HEIGHT - _FOOT - height
        parts.append(
            f'<rect class="fill c-accent" x="{i * step + 2:.1f}" y="{top:.1f}" width="{step - 4:.1f}" '
            f'height="{height:.1f}" rx="2"><title>{Markup.escape(label)}: {count:,}</title></rect>'
            + _tick(middle, _HEIGHT - 4, label)
            + _tick(middle, top - 3, _short(count))
        )
    return Markup(f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>')


def _tick(x: float, y: float, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{Markup.escape(text)}</text>'


def _short(count: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count) if count else ""

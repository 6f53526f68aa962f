"""The study on paper: one HTML page with plots, and the same figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thinkedit.actors.images import write_atomically
from thinkedit.evals.report.svg import Series, interval_bar, line_chart, number
from thinkedit.evals.study.figures import COMPARED, Answer, Comparison, Line


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the figures were counted from. quick: too little was trained for them to mean anything."""

    seeds: Sequence[int]
    quick: bool


_CSS = {"sft": "c-sft", "rl": "c-grpo", "aware_expert": "c-aware", "rl_one_step": "c-naive"}
COLUMNS = {
    "critic error": "mean |predicted − judged| over both axes on the first edits",
    "content": "share of runs that ended because the thinker kept an edit",
    "unreadable": "share of runs that ended with a reply that can't be read; the edit it saw stands",
    "failed": "runs without an edit or a verdict, left out of every figure",
}
METHOD = (
    "O = sqrt(semantic · quality) of the picture that stands at the end, 0–10. All seeds play the same "
    "tasks; brackets hold 95 % bootstrap intervals over tasks, and how far seeds lie apart is in their own "
    "column. Paper: O on GEdit-Bench-EN with FLUX.1-Kontext-dev as published (EditThinker, arXiv "
    "2512.05965v1): another editor, judge and scale, so only the order of its rows can be compared. Two rows "
    "are compared task by task: they agree with the paper, differ from it, or are better or worse, where the "
    "interval of the difference leaves out zero."
)


def build_page(answers: Sequence[Answer], about: About, path: Path) -> None:
    """Write the HTML page; it needs no network and no other file."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("thinkedit.evals.study"), PackageLoader("thinkedit.evals.report")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("study.html.j2").render(
        answers=[(answer, *_compared(answer), _curves(answer)) for answer in answers],
        line_chart=line_chart,
        about=about,
        sentence=_sentence,
        change=_change,
        compared=COMPARED,
        columns=COLUMNS,
        method=METHOD,
        bar=_bar,
        number=number,
    )
    write_atomically(path, html.encode(), sync=False)


def build_markdown(answers: Sequence[Answer], about: About) -> str:
    """The tables as a page of docs/."""
    seeds = ", ".join(map(str, about.seeds))
    parts = [
        "# Study",
        f"Written by `thinkedit study`; do not edit by hand. Seeds {seeds}. {METHOD}",
    ]
    if about.quick:
        parts.append("**Made with `--quick`: this shows that the study runs. The figures mean nothing.**")
    for answer in answers:
        head = ["", "O", "paper", "by seed", "tasks", "semantic", "quality", *COLUMNS]
        parts += [
            f"## {answer.question.title}",
            f"The paper: {answer.question.paper}",
            _table(head, [_cells(line) for line in answer.lines]),
        ]
        with_paper, changes = _compared(answer)
        if with_paper:
            parts.append("\n".join(f"- **{one.verdict}**: {_sentence(one)}" for one in with_paper))
        if changes:
            rows = [
                [pair, *(f"{_change(row[f])}, {row[f].verdict}" if f in row else "–" for f in COMPARED)]
                for pair, row in changes.items()
            ]
            parts.append(_table(["", *(f"change of {figure}" for figure in COMPARED)], rows))
    parts.append("\n".join(f"- {name}: {meaning}" for name, meaning in COLUMNS.items()))
    return "\n\n".join(parts) + "\n"


def _cells(line: Line) -> list[str]:
    overall = line.overall
    return [
        line.row.label,
        f"{overall.mean:.2f} ({overall.low:.2f} to {overall.high:.2f})",
        number(line.row.paper),
        " ".join(f"{mean:.2f}" for mean in line.by_seed),
        str(overall.n),
        number(line.semantic),
        number(line.quality),
        number(line.critic),
        number(line.kept),
        number(line.unreadable),
        str(line.failed),
    ]


def _compared(answer: Answer) -> tuple[list[Comparison], dict[str, dict[str, Comparison]]]:
    """Those with the paper's order, and the others by pair of rows and figure."""
    changes: dict[str, dict[str, Comparison]] = {}
    for one in answer.comparisons:
        if one.paper is None:
            changes.setdefault(f"{one.above} against {one.below}", {})[one.figure] = one
    return [one for one in answer.comparisons if one.paper is not None], changes


def _sentence(comparison: Comparison) -> str:
    above, below, paper = comparison.above, comparison.below, comparison.paper
    return f"{above} against {below}: {comparison.figure} {_change(comparison)}, paper {paper:+.2f}"


def _change(comparison: Comparison) -> str:
    ours = comparison.ours
    return f"{ours.mean:+.2f} ({ours.low:+.2f} to {ours.high:+.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _curves(answer: Answer) -> list[Series]:
    """O by number of edits, of each cell that the answer shows after three numbers or more."""
    found: list[Series] = []
    for cell in dict.fromkeys(line.row.cell for line in answer.lines):
        lines = [line for line in answer.lines if line.row.cell == cell and line.row.edits is not None]
        if len(lines) > 2:
            found.append(
                Series(
                    lines[0].row.label.rpartition(", ")[0],
                    [line.row.edits or 0 for line in lines],
                    [line.overall.mean for line in lines],
                    _CSS.get(cell, "c-accent"),
                    low=[line.overall.low for line in lines],
                    high=[line.overall.high for line in lines],
                )
            )
    return found


def _bar(line: Line) -> Markup:
    return interval_bar(line.overall.mean, line.overall.low, line.overall.high, "c-grpo")

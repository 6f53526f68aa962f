"""The study's figures: means over seeds and tasks, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from thinkedit.actors.inference.records import Stop
from thinkedit.evals.stats import Interval, paired_difference, strata_interval
from thinkedit.evals.study.plan import QUESTIONS, Question, Row
from thinkedit.evals.study.play import Played
from thinkedit.types import Scores

COMPARED = OVERALL, QUALITY, CRITIC_ERROR = "O", "quality", "critic error"
Cells = Mapping[str, Sequence[Played]]
"""The tasks of one seed by cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row, counted.

    overall: O = sqrt(semantic * quality), the mean over tasks and seeds. All seeds play the same tasks, so
    a task is resampled whole, with what every seed made of it; `n` counts tasks. The interval says how
    far other tasks would move the mean, not how far other seeds would: those are in `by_seed`.
    by_task: O, quality and critic error of each task, the mean over the seeds that have one.
    critic: mean absolute error on the first edits, where scores were predicted.
    kept: share of runs that ended because the thinker was content. unreadable: that ended with a reply
    that can't be read. failed: runs without an edit or a verdict, left out of every mean.
    """

    row: Row
    overall: Interval
    by_seed: Sequence[float]
    by_task: Mapping[str, Mapping[str, float]]
    semantic: float
    quality: float
    critic: float | None
    kept: float
    unreadable: float
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two rows: the difference of a figure over the tasks that both have, each task against itself.

    paper: its difference, where it published both.
    verdict: `undecided` where our interval holds zero, else `agrees` or `differs` by the sign of the
    paper's, or without one `better` or `worse`.
    """

    above: str
    below: str
    figure: str
    ours: Interval
    paper: float | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question with its counted rows, in the plan's order, and what they are compared with.

    comparisons: each published row against the one before it, then each row against those of
    `Question.against`.
    """

    question: Question
    lines: Sequence[Line]
    comparisons: Sequence[Comparison]


def answers(seeds: Sequence[Cells], *, resamples: int = 2000) -> list[Answer]:
    """Count every question that each of the seeds has played all cells of."""
    found = []
    for question in QUESTIONS:
        if all(row.cell in cells for row in question.rows for cells in seeds):
            lines = [_line(row, seeds, resamples) for row in question.rows]
            compared = _comparisons(question, lines, resamples)
            found.append(Answer(question=question, lines=lines, comparisons=compared))
    return found


def _line(row: Row, seeds: Sequence[Cells], resamples: int) -> Line:
    played = [cells[row.cell] for cells in seeds]
    counted = [[p for p in tasks if not p.failed] for tasks in played]
    everyone = [p for tasks in counted for p in tasks]
    scores = [(p.task, Scores(*p.after(row.edits))) for p in everyone]
    overall = _by_task((task, score.overall) for task, score in scores)
    # One edit takes no critique.
    errors = [] if row.edits == 1 else [(p.task, e) for p in everyone if (e := p.critic_error()) is not None]
    return Line(
        row=row,
        overall=strata_interval([[(sum(os), len(os)) for os in overall.values()]], resamples=resamples),
        by_seed=[fmean(Scores(*p.after(row.edits)).overall for p in tasks) for tasks in counted],
        by_task={
            OVERALL: _means(overall),
            QUALITY: _means(_by_task((task, score.quality) for task, score in scores)),
            CRITIC_ERROR: _means(_by_task(errors)),
        },
        semantic=fmean(score.semantic for _, score in scores),
        quality=fmean(score.quality for _, score in scores),
        critic=fmean(error for _, error in errors) if errors else None,
        kept=fmean(p.ended((Stop.ACCEPTED, Stop.REPEATED), row.edits) for p in everyone),
        unreadable=fmean(p.ended((Stop.THINKER_UNREADABLE,), row.edits) for p in everyone),
        failed=sum(len(tasks) for tasks in played) - len(everyone),
    )


def _by_task(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for task, value in values:
        found.setdefault(task, []).append(value)
    return found


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {task: fmean(of_seeds) for task, of_seeds in values.items()}


def _comparisons(question: Question, lines: Sequence[Line], resamples: int) -> list[Comparison]:
    found: list[Comparison] = []
    for before, after in pairwise(line for line in lines if line.row.paper is not None):
        if after.row.edits == 1 and found:
            continue  # the list begins anew with another thinker
        found.append(_compared(before, after, OVERALL, resamples))
    for place, before in enumerate(lines):
        if before.row.label in question.against:
            found += [
                _compared(before, after, figure, resamples)
                for after in lines[place + 1 :]
                for figure in COMPARED
                if before.by_task[figure] and after.by_task[figure]  # who takes no critique errs in none
            ]
    return found


def _compared(before: Line, after: Line, figure: str, resamples: int) -> Comparison:
    ours = paired_difference(before.by_task[figure], after.by_task[figure], resamples=resamples)
    paper = None
    if before.row.paper is not None and after.row.paper is not None:
        paper = after.row.paper - before.row.paper
    if ours.low <= 0 <= ours.high:
        verdict = "undecided"
    elif paper is not None:
        verdict = "agrees" if paper * ours.mean > 0 else "differs"
    else:
        verdict = "better" if (ours.mean > 0) == (figure != CRITIC_ERROR) else "worse"
    return Comparison(
        above=after.row.label, below=before.row.label, figure=figure, ours=ours, paper=paper, verdict=verdict
    )

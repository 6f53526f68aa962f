"""The study's figures: means over seeds and tasks, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from thinkedit.errors import DataError
from thinkedit.evals.stats import Interval, critic_error, strata_interval
from thinkedit.evals.study.plan import QUESTIONS, Question, Row
from thinkedit.evals.study.play import Played
from thinkedit.types import Scores

Cells = Mapping[str, Sequence[Played]]
"""The tasks of one seed by cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row, counted.

    overall: O = sqrt(semantic * quality), the mean over the seeds' means; each seed is a stratum whose
    tasks are resampled. by_seed: O of each. critic: mean absolute error on the first edits, where scores
    were predicted. kept: share of runs that ended because the thinker was content. failed: tasks without
    an edit or a verdict, left out of every mean.
    """

    row: Row
    overall: Interval
    by_seed: Sequence[float]
    semantic: float
    quality: float
    critic: float | None
    kept: float
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question with its counted rows, in the plan's order; rows whose cell nobody played are left out."""

    question: Question
    lines: Sequence[Line]


def answers(seeds: Sequence[Cells], *, resamples: int = 2000) -> list[Answer]:
    """Count every question over the seeds.

    Raises:
        DataError: the seeds did not play the same cells.
    """
    if len({frozenset(cells) for cells in seeds}) > 1:
        raise DataError("the seeds of a study must have played the same cells; finish them first")
    return [
        Answer(
            question=question,
            lines=[line for row in question.rows if (line := _line(row, seeds, resamples)) is not None],
        )
        for question in QUESTIONS
    ]


def _line(row: Row, seeds: Sequence[Cells], resamples: int) -> Line | None:
    played = [cells.get(row.cell, ()) for cells in seeds]
    counted = [[p for p in tasks if not p.failed] for tasks in played]
    if not counted or not all(counted):
        return None
    pairs = [[p.after(row.edits) for p in tasks] for tasks in counted]
    overall = [[Scores(*pair).overall for pair in tasks] for tasks in pairs]
    everyone = [p for tasks in counted for p in tasks]
    predicted = [p for p in everyone if p.predicted is not None]
    error = critic_error(
        [Scores(*p.predicted) for p in predicted if p.predicted is not None],
        [Scores(*p.judged[0]) for p in predicted],
    )
    return Line(
        row=row,
        overall=strata_interval([[(o, 1.0) for o in tasks] for tasks in overall], resamples=resamples),
        by_seed=[fmean(tasks) for tasks in overall],
        semantic=fmean(semantic for tasks in pairs for semantic, _ in tasks),
        quality=fmean(quality for tasks in pairs for _, quality in tasks),
        critic=None if error is None or row.edits == 1 else error.overall,  # one edit takes no critique
        kept=fmean(p.content(row.edits) for p in everyone),
        failed=sum(len(tasks) for tasks in played) - len(everyone),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two rows that the paper reports too: its difference of O, and ours.

    verdict: `agrees` or `differs` by sign where our intervals lie apart, else `undecided`.
    """

    above: str
    below: str
    paper: float
    ours: float
    verdict: str


def comparisons(answer: Answer) -> list[Comparison]:
    """Each published row of an answer against the one before it."""
    published = [line for line in answer.lines if line.row.paper is not None]
    found: list[Comparison] = []
    for before, after in pairwise(published):
        assert before.row.paper is not None
        assert after.row.paper is not None
        paper, ours = after.row.paper - before.row.paper, after.overall.mean - before.overall.mean
        if after.row.edits == 1 and found:
            continue  # the list begins anew with another thinker
        verdict = "agrees" if paper * ours > 0 else "differs"
        if not after.overall.apart_from(before.overall):
            verdict = "undecided"
        found.append(
            Comparison(above=after.row.label, below=before.row.label, paper=paper, ours=ours, verdict=verdict)
        )
    return found

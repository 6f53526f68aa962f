"""Plays one cell of the study and writes a line per task; counts nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from thinkedit.actors.images import write_atomically
from thinkedit.actors.inference.loop import Run
from thinkedit.actors.inference.records import (
    EditResult,
    Options,
    Stop,
    ThinkerError,
    ThinkerUnreadable,
    Thought,
)
from thinkedit.actors.inference.thinkers import PolicyThinker
from thinkedit.actors.play import Policy
from thinkedit.envs.build import Parts
from thinkedit.envs.services import JudgeRequest
from thinkedit.errors import DataError, ServiceError, ThinkEditError
from thinkedit.evals.study.plan import Cell
from thinkedit.types import RGB, Scores, Task, Verdict

Pair = tuple[float, float]  # semantic, quality
MOST_FAILED = 0.05  # of a cell's tasks; beyond that something is down, and the cell is no measurement


class CellFailed(ThinkEditError):
    """Too many tasks of a cell had no edit, no reply or no verdict; nothing of it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of one task.

    judged: of every edit in order. predicted: the thinker's own scores of the first edit, where it
    gave any. stop: how it ended; `failed` where editor, judge or engine gave nothing, and then nothing
    is judged. A reply that can't be read is the thinker's own fault and no failure.
    """

    task: str
    task_type: str
    stop: str
    judged: tuple[Pair, ...] = ()
    predicted: Pair | None = None
    detail: str = ""

    @property
    def failed(self) -> bool:
        return not self.judged

    def after(self, edits: int | None) -> Pair:
        """Scores of the picture that stands after so many edits; whoever stopped early keeps the last one."""
        return self.judged[-1 if edits is None else min(edits, len(self.judged)) - 1]

    def critic_error(self) -> float | None:
        """Mean absolute error of the scores predicted for the first edit; None without any."""
        if self.predicted is None:
            return None
        return fmean(abs(guess - truth) for guess, truth in zip(self.predicted, self.judged[0], strict=True))

    def ended(self, stops: Container[str], edits: int | None) -> bool:
        """Whether it ended so, with at most so many edits: one is made for each critique before the last."""
        return self.stop in stops and (edits is None or len(self.judged) < edits)


async def play_cell(
    parts: Parts,
    cell: Cell,
    policy: Policy,
    file: Path,
    *,
    count: int,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Play the first `count` held-out tasks, each with a seed of its own, and write `file` whole.

    A thinker's reply is asked for once: one that can't be read ends the run with the edit it saw, or,
    where it should have worded the first prompt, leaves the instruction as it is.

    Raises:
        CellFailed: more than `MOST_FAILED` of the tasks failed.
    """
    config = parts.config
    about = {"cell": cell.name}
    thinker = _AskedOnce(policy, parts.protocol, about, tries=1)
    services = parts.session().services
    gate = asyncio.Semaphore(config.rollout.concurrency)
    done = 0

    async def one(index: int) -> Played:
        nonlocal done
        task = parts.tasks.task("test", index)
        options = Options(mode=cell.mode, turns=cell.turns, seed=config.eval.seed + index)
        async with gate:
            run = Run(services, thinker.for_mode(cell.mode), task.source, task.instruction, options)
            try:
                result = await run.play()
                if result.stop in (Stop.THINKER_FAILED, Stop.EDITOR_FAILED):
                    played = _failed(task, result.detail)
                else:
                    judged = [await _judged(services.call, task, image.image) for image in result.attempts]
                    played = _played(task, result, judged)
            except (ServiceError, ThinkerError) as error:
                played = _failed(task, str(error))
        progress(done := done + 1)
        return played

    rows = await asyncio.gather(*(one(index) for index in range(count)))
    failed = [row for row in rows if row.failed]
    if len(failed) > MOST_FAILED * count:
        raise CellFailed(
            f"{cell.name}: {len(failed)} of {count} tasks failed, the first with: {failed[0].detail}. "
            "Nothing of the cell is kept; mend it and run the study again"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    write_atomically(file, lines.encode(), sync=True)


def read_cell(file: Path, count: int) -> list[Played]:
    """The lines of a cell.

    Raises:
        DataError: it was played on another number of tasks than `count`.
    """
    rows = [_from_json(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    if len(rows) != count:
        raise DataError(
            f"{file} holds {len(rows)} tasks, and {count} are asked for: set eval.tasks as it was, or "
            "choose another run_dir"
        )
    return rows


class _AskedOnce(PolicyThinker):
    """Whose first prompt, if it can't be read, is the instruction; `Thought.faults` says so."""

    async def rewrite(self, source: RGB, instruction: str, *, seed: int) -> Thought:
        try:
            return await super().rewrite(source, instruction, seed=seed)
        except ThinkerUnreadable as error:
            return Thought(reason="", prompt=None, predicted=None, end=None, reply="", faults=(str(error),))


async def _judged(call: Callable[[JudgeRequest], Any], task: Task, image: Any) -> Scores:
    answer = await call(JudgeRequest(task.source, image, task.instruction))
    if isinstance(answer, ServiceError):
        raise answer
    assert isinstance(answer, Verdict), "a judge request is answered by a verdict"
    return answer.scores


def _failed(task: Task, detail: str) -> Played:
    return Played(task=task.uid, task_type=task.task_type, stop="failed", detail=detail)


def _played(task: Task, result: EditResult, judged: list[Scores]) -> Played:
    first = result.attempts[0].thought
    predicted = first.predicted if first is not None else None
    unread = result.stop is Stop.ONE_EDIT and result.rewrite is not None and result.rewrite.faults
    return Played(
        task=task.uid,
        task_type=task.task_type,
        stop=str(Stop.THINKER_UNREADABLE if unread else result.stop),
        judged=tuple((scores.semantic, scores.quality) for scores in judged),
        predicted=None if predicted is None else (predicted.semantic, predicted.quality),
        detail=result.detail,
    )


def _from_json(record: dict[str, Any]) -> Played:
    judged = tuple((float(semantic), float(quality)) for semantic, quality in record.pop("judged"))
    predicted = record.pop("predicted")
    return Played(**record, judged=judged, predicted=None if predicted is None else tuple(predicted))

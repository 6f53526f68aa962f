"""Plays one cell of the study and writes a line per task; counts nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinkedit.actors.images import write_atomically
from thinkedit.actors.inference.loop import Run
from thinkedit.actors.inference.records import EditResult, Options, ThinkerError
from thinkedit.actors.inference.thinkers import PolicyThinker
from thinkedit.actors.play import Policy
from thinkedit.envs.build import Parts
from thinkedit.envs.services import JudgeRequest
from thinkedit.errors import ServiceError
from thinkedit.evals.study.plan import Cell
from thinkedit.types import Scores, Task, Verdict

Pair = tuple[float, float]  # semantic, quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of one task.

    judged: of every edit in order. predicted: the thinker's own scores of the first edit, where it
    gave any. edits: how many were made. stop: how it ended; `failed` without a first edit or a verdict.
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

    def content(self, edits: int | None) -> bool:
        """Whether the thinker kept an edit, of at most so many: one is made for each critique before that."""
        return self.stop in ("accepted", "repeated") and (edits is None or len(self.judged) < edits)


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

    A thinker's reply is asked for once: one that can't be read ends the run with the edit it saw.
    """
    config = parts.config
    about = {"cell": cell.name}
    thinker = PolicyThinker(policy, parts.protocol, about, tries=1)
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
                judged = [await _judged(services.call, task, image.image) for image in result.attempts]
                played = _played(task, result, judged)
            except (ServiceError, ThinkerError) as error:
                played = Played(task=task.uid, task_type=task.task_type, stop="failed", detail=str(error))
        progress(done := done + 1)
        return played

    rows = await asyncio.gather(*(one(index) for index in range(count)))
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    write_atomically(file, lines.encode(), sync=True)


def read_cell(file: Path) -> list[Played]:
    """The lines of a cell."""
    return [_from_json(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


async def _judged(call: Callable[[JudgeRequest], Any], task: Task, image: Any) -> Scores:
    answer = await call(JudgeRequest(task.source, image, task.instruction))
    if isinstance(answer, ServiceError):
        raise answer
    assert isinstance(answer, Verdict), "a judge request is answered by a verdict"
    return answer.scores


def _played(task: Task, result: EditResult, judged: list[Scores]) -> Played:
    first = result.attempts[0].thought
    predicted = first.predicted if first is not None else None
    return Played(
        task=task.uid,
        task_type=task.task_type,
        stop=str(result.stop),
        judged=tuple((scores.semantic, scores.quality) for scores in judged),
        predicted=None if predicted is None else (predicted.semantic, predicted.quality),
        detail=result.detail,
    )


def _from_json(record: dict[str, Any]) -> Played:
    judged = tuple((float(semantic), float(quality)) for semantic, quality in record.pop("judged"))
    predicted = record.pop("predicted")
    return Played(**record, judged=judged, predicted=None if predicted is None else tuple(predicted))

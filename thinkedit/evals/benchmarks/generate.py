"""Makes an arm's results: every item once, as many at a time as are allowed, and what is there is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from thinkedit.actors.inference import (
    Attempt,
    Options,
    SelectionFailed,
    Stop,
    ThinkerError,
    ThinkingEditor,
)
from thinkedit.envs.editors.base import EditRequest
from thinkedit.envs.services import Services
from thinkedit.errors import ServiceError, ThinkEditError
from thinkedit.evals.benchmarks.arms import Arm, Course, Step
from thinkedit.evals.benchmarks.base import Benchmark, Item
from thinkedit.evals.benchmarks.pool import each
from thinkedit.types import RGB, Verdict

log = logging.getLogger(__name__)


class Unfinished(ThinkEditError):
    """A run of editor and thinker broke off, so that the item has no result."""


_FAILURES = (ServiceError, ThinkerError, SelectionFailed, Unfinished)

Maker = Callable[[RGB, str], Awaitable[Course]]
"""Edits a source by an instruction. Raises one of `_FAILURES` when it could not."""


def plain_editor(services: Services, seed: int) -> Maker:
    """One edit with the instruction as it is."""

    async def make(source: RGB, instruction: str) -> Course:
        image = await services.call(EditRequest(source, instruction, seed))
        if isinstance(image, ServiceError):
            raise image
        assert not isinstance(image, Verdict), "an edit request is answered by an image"
        return Course(images=[image], steps=[Step(prompt=instruction)], chosen=0, stop="one_edit")

    return make


def thinking_editor(thinking: ThinkingEditor, options: Options) -> Maker:
    """Edit, let the thinker look, edit again.

    A thinker that can't be read keeps the edit it saw: that is its own fault, and its result. One that
    gives no reply, or an editor that fails, leaves no result at all.
    """

    async def make(source: RGB, instruction: str) -> Course:
        found = await thinking.edit(source, instruction, options)
        if found.stop in (Stop.THINKER_FAILED, Stop.EDITOR_FAILED):
            raise Unfinished(found.detail)
        return Course(
            images=[attempt.image for attempt in found.attempts],
            steps=[_step(attempt) for attempt in found.attempts],
            chosen=found.result.index,
            stop=found.stop.value,
            detail=found.detail,
            unread=found.unread,
        )

    return make


def _is_made(benchmark: Benchmark, arm: Arm, item: Item) -> bool:
    return all(arm.picture(benchmark, item, turn) for turn in arm.turns)


def _step(attempt: Attempt) -> Step:
    thought = attempt.thought
    predicted = None if thought is None else thought.predicted
    return Step(
        prompt=attempt.prompt,
        reason="" if thought is None else thought.reason,
        reply="" if thought is None else thought.reply,
        predicted=None if predicted is None else (predicted.semantic, predicted.quality),
    )


async def generate(
    benchmark: Benchmark,
    arm: Arm,
    make: Maker,
    *,
    concurrency: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, str]:
    """Make what is missing of an arm, or was made of another instruction or source picture.

    Items that need several input pictures are left out.

    Returns:
        What failed, by item; they are missing, and the next run tries them again.

    Raises:
        DataError: a source picture that can't be read.
    """
    wanted = [item for item in benchmark.items if not item.unsupported]
    failed: dict[str, str] = {}
    done = 0

    async def one(item: Item) -> None:
        nonlocal done
        if not await asyncio.to_thread(_is_made, benchmark, arm, item):
            source = await asyncio.to_thread(item.source)
            try:
                course = await make(source, item.instruction)
            except _FAILURES as error:
                log.info("item %s: %s", item.id, error)
                failed[item.id] = str(error)
            else:
                await asyncio.to_thread(arm.write, benchmark, item, course)
        progress(done := done + 1)

    await each(wanted, one, workers=concurrency)
    return {item.id: failed[item.id] for item in wanted if item.id in failed}

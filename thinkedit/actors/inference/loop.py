"""Think-while-edit on one picture: edit, critique, word a better prompt, edit again.

Unlike an episode of `EditSession` a run needs no judge and gives no rewards, may start with a
rewritten prompt, and its thinker may predict no scores. Editor calls, reading of replies and the rule
that ends a loop are the session's own (`Services`, `Protocol`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from thinkedit.actors.inference.records import (
    Attempt,
    Critiqued,
    Edited,
    EditResult,
    Event,
    Finished,
    Judged,
    Mode,
    Options,
    Rewritten,
    RunStopped,
    Select,
    SelectionFailed,
    Started,
    Stop,
    ThinkerError,
    ThinkerUnreadable,
    Thought,
    Working,
)
from thinkedit.actors.inference.thinkers import Thinker
from thinkedit.envs.editors.base import EditRequest
from thinkedit.envs.services import JudgeRequest, Services, frozen
from thinkedit.errors import DataError, ServiceError
from thinkedit.types import RGB, Observation, Verdict


def silent(event: Event) -> None:
    """Tells nobody."""


class Run:
    """One run; its state is there whenever it is stopped.

    Args:
        tell: called with each event as it happens; what it raises ends the run.
        about: kept in the result.
    """

    def __init__(
        self,
        services: Services,
        thinker: Thinker,
        source: RGB,
        instruction: str,
        options: Options,
        *,
        tell: Callable[[Event], None] = silent,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Raises:
            DataError: the instruction is empty.
        """
        if not instruction.strip():
            raise DataError("the instruction is empty: say what to change")
        self._services, self._thinker, self._tell = services, thinker, tell
        self._source, self._instruction, self._options = frozen(source), instruction.strip(), options
        self._about = dict(about or {})
        self._attempts: list[Attempt] = []
        self._rewrite: Thought | None = None
        self._unread: tuple[str, ...] = ()

    async def play(self, stop: asyncio.Event | None = None) -> EditResult:
        """Edit until the thinker is satisfied, the turns are used up, or `stop` is set.

        Returns:
            Also when thinker or editor failed after the first edit, or the run was stopped: `stop`
            and `detail` of the result say so.

        Raises:
            ServiceError: the first edit could not be made.
            ThinkerError: the first prompt could not be worded (modes with `before`).
            SelectionFailed: no edit has the scores to choose by.
            RunStopped: stopped before the first edit was there.
        """
        self._tell(Started(self._source, self._instruction, self._options))
        work = asyncio.ensure_future(self._work())
        halt = asyncio.ensure_future((stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({work, halt}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                ended, detail = work.result()
            else:
                ended, detail = Stop.STOPPED, ""
        finally:
            for task in (work, halt):
                task.cancel()
            await asyncio.gather(work, halt, return_exceptions=True)
        if not self._attempts:
            raise RunStopped("stopped before the first edit was made")
        fault: SelectionFailed | None = None
        chosen: int | None = None
        try:
            chosen = choose(self._attempts, self._options.select, detail)
        except SelectionFailed as error:
            fault, detail = error, str(error)
        result = self._result(ended, chosen, detail)
        self._tell(Finished(result))  # the edits are paid for, chosen or not
        if fault is not None:
            raise fault
        return result

    async def _work(self) -> tuple[Stop, str]:
        """Why it ended, and what failed."""
        prompt, options = self._instruction, self._options
        if options.mode.rewrites:
            self._tell(Working("thinker"))
            rewrite = await self._thinker.rewrite(self._source, self._instruction, seed=options.seed)
            self._rewrite = rewrite
            prompt = rewrite.prompt or self._instruction
            self._tell(Rewritten(rewrite))
        await self._edit(prompt)
        if options.mode is Mode.BEFORE:
            return Stop.ONE_EDIT, ""
        for turn in range(options.turns):
            try:
                thought = await self._critique(turn)
            except ThinkerError as error:
                self._unread = error.unread
                unreadable = isinstance(error, ThinkerUnreadable)
                return Stop.THINKER_UNREADABLE if unreadable else Stop.THINKER_FAILED, str(error)
            if thought.end is not None:
                return thought.end, ""
            assert thought.prompt is not None, "a thought that ends nothing has a prompt"
            try:
                await self._edit(thought.prompt)
            except ServiceError as error:
                return Stop.EDITOR_FAILED, str(error)
        detail = ""
        if options.select is Select.BEST_PREDICTED:
            try:
                await self._critique(options.turns)
            except ThinkerError as error:
                self._unread = error.unread
                detail = f"the last edit has no scores to be chosen by: {error}"
        return Stop.TURN_LIMIT, detail

    async def _edit(self, prompt: str) -> None:
        self._tell(Working("editor"))
        began = time.perf_counter()
        image = await self._services.call(EditRequest(self._source, prompt, self._options.seed))
        if isinstance(image, ServiceError):
            raise image
        assert not isinstance(image, Verdict), "an edit request is answered by an image"
        attempt = Attempt(
            index=len(self._attempts), prompt=prompt, image=image, seconds=time.perf_counter() - began
        )
        self._attempts.append(attempt)
        self._tell(Edited(attempt))
        if self._options.select is Select.BEST_JUDGE:
            await self._judge()

    async def _judge(self) -> None:
        """Grade the last edit; a judge that fails leaves it without a verdict."""
        self._tell(Working("judge"))
        seen = self._attempts[-1]
        answer = await self._services.call(JudgeRequest(self._source, seen.image, self._instruction))
        if isinstance(answer, Verdict):
            self._attempts[-1] = replace(seen, verdict=answer)
        else:
            self._attempts[-1] = replace(seen, judge_fault=str(answer))
        self._tell(Judged(self._attempts[-1]))

    async def _critique(self, turn: int) -> Thought:
        """What the thinker says of the last edit."""
        self._tell(Working("thinker"))
        seen = self._attempts[-1]
        observation = Observation(
            source=self._source,
            edited=seen.image,
            instruction=self._instruction,
            prompt=seen.prompt,
            turn=turn,
            turns_left=max(0, self._options.turns - turn),
        )
        thought = await self._thinker.critique(observation, seed=self._options.seed)
        self._attempts[-1] = replace(seen, thought=thought)
        self._tell(Critiqued(self._attempts[-1]))
        return thought

    def _result(self, stop: Stop, chosen: int | None, detail: str) -> EditResult:
        return EditResult(
            source=self._source,
            instruction=self._instruction,
            options=self._options,
            rewrite=self._rewrite,
            attempts=tuple(self._attempts),
            chosen=chosen,
            stop=stop,
            detail=detail,
            unread=self._unread,
            about=self._about,
        )


def choose(attempts: Sequence[Attempt], select: Select, detail: str = "") -> int:
    """The index of the edit that is the result.

    Scores are compared by `Scores.overall`; an edit without any never wins.

    Args:
        detail: what failed so far, for the message.

    Raises:
        SelectionFailed: several edits, and none has a score.
    """
    if select is Select.LAST or len(attempts) == 1:
        return len(attempts) - 1
    known: dict[int, float] = {}
    for attempt in attempts:
        if select is Select.BEST_JUDGE and attempt.verdict is not None:
            known[attempt.index] = attempt.verdict.scores.overall
        elif select is Select.BEST_PREDICTED and attempt.thought and attempt.thought.predicted:
            known[attempt.index] = attempt.thought.predicted.overall
    if not known:
        faults = "; ".join(dict.fromkeys(a.judge_fault for a in attempts if a.judge_fault)) or detail
        raise SelectionFailed(f"select={select}: none of the {len(attempts)} edits has a score ({faults})")
    return max(known, key=lambda index: known[index])

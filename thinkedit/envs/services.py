"""Calls to editor and judge, with deadlines; what comes back is checked and every failure is typed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thinkedit.envs.editors.base import Editor, EditRequest
from thinkedit.errors import EditorError, JudgeError, ServiceError, ServiceTimeout
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.checked import checked_verdict
from thinkedit.types import RGB, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class JudgeRequest:
    """One edit to grade, against the user's original instruction."""

    source: RGB
    edited: RGB
    instruction: str


class Services:
    """An editor and a judge with the deadline of one call each, in seconds."""

    def __init__(self, editor: Editor, judge: Judge, edit_timeout_s: float, judge_timeout_s: float) -> None:
        self.editor, self.judge = editor, judge
        self._edit_timeout_s, self._judge_timeout_s = edit_timeout_s, judge_timeout_s

    async def call(self, request: EditRequest | JudgeRequest) -> RGB | Verdict | ServiceError:
        """The answer, or the typed error in its place (a generator can be sent either)."""
        try:
            if isinstance(request, EditRequest):
                return await self._edit(request)
            return await self._judge(request)
        except ServiceError as error:
            return error

    async def call_many(
        self, requests: Sequence[EditRequest | JudgeRequest]
    ) -> list[RGB | Verdict | ServiceError]:
        """All at once, edits and verdicts; the edits as one batch where the editor makes batches."""
        edits = [request for request in requests if isinstance(request, EditRequest)]
        others = [request for request in requests if not isinstance(request, EditRequest)]
        edited, judged = await asyncio.gather(
            self._edit_many(edits), asyncio.gather(*(self.call(request) for request in others))
        )
        images, verdicts = iter(edited), iter(judged)
        return [next(images) if isinstance(request, EditRequest) else next(verdicts) for request in requests]

    async def _edit(self, request: EditRequest) -> RGB:
        try:
            async with asyncio.timeout(self._edit_timeout_s):
                image = await self.editor.edit_async(request.source, request.prompt, seed=request.seed)
        except ServiceError:
            raise
        except Exception as error:  # a plug-in may raise anything; none of it may pass untyped
            raise self._edit_error(error, self._edit_timeout_s) from error
        return checked_edit(image, request.source, self.editor.name)

    async def _edit_many(self, requests: Sequence[EditRequest]) -> list[RGB | ServiceError]:
        if not requests:
            return []
        if not (self.editor.makes_batches or self.editor.inline):  # inline: no deadline could stop it
            return await self._edit_each(requests)
        # Nobody can see into a batch: one that is made serially needs the time of all its edits.
        deadline = self._edit_timeout_s * len(requests)
        try:
            async with asyncio.timeout(deadline):
                results = await self.editor.edit_many(requests)
            if len(results) != len(requests):
                raise EditorError(f"{self.editor.name}: {len(results)} results for {len(requests)} edits")
        except Exception as error:  # noqa: BLE001 - see _edit
            return [self._edit_error(error, deadline)] * len(requests)
        return [self._one_of_many(result, asked) for result, asked in zip(results, requests, strict=True)]

    async def _edit_each(self, requests: Sequence[EditRequest]) -> list[RGB | ServiceError]:
        """Side by side. Late is what is missing when nothing has come for the time of one edit.

        So an editor that makes them in turn gets the time it needs, and an edit that hangs costs the others
        nothing.
        """
        tasks = [asyncio.create_task(self._unhurried(request)) for request in requests]
        pending = set(tasks)
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=self._edit_timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        late = self._edit_error(TimeoutError(), self._edit_timeout_s)
        return [late if task in pending else task.result() for task in tasks]

    async def _unhurried(self, request: EditRequest) -> RGB | ServiceError:
        try:
            image = await self.editor.edit_async(request.source, request.prompt, seed=request.seed)
        except Exception as error:  # noqa: BLE001 - see _edit
            return self._edit_error(error, self._edit_timeout_s)
        return self._one_of_many(image, request)

    def _one_of_many(self, result: RGB | Exception, request: EditRequest) -> RGB | ServiceError:
        if isinstance(result, Exception):
            return self._edit_error(result, self._edit_timeout_s)
        try:
            return checked_edit(result, request.source, self.editor.name)
        except EditorError as error:
            return error

    def _edit_error(self, error: Exception, deadline_s: float) -> ServiceError:
        return _typed(error, EditorError, f"editor {self.editor.name!r}", deadline_s)

    async def _judge(self, request: JudgeRequest) -> Verdict:
        try:
            async with asyncio.timeout(self._judge_timeout_s):
                verdict = await self.judge.judge_async(request.source, request.edited, request.instruction)
        except ServiceError:
            raise
        except Exception as error:
            raise _typed(error, JudgeError, f"judge {self.judge.name!r}", self._judge_timeout_s) from error
        return checked_verdict(verdict, self.judge.name)


def _typed(
    error: Exception, kind: type[EditorError] | type[JudgeError], who: str, deadline_s: float
) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, TimeoutError):
        typed: ServiceError = ServiceTimeout(f"{who} gave no answer within {deadline_s:g} s")
    else:
        typed = kind(f"{who} raised {type(error).__name__}: {error}")
    typed.__cause__ = error
    return typed


def checked_edit(image: object, source: RGB, editor: str) -> RGB:
    """A read-only copy of the editor's image, if it is one.

    Raises:
        EditorError: not uint8 of the source's shape, or of one colour though the source is not
            (what a crashed or filtering editor returns).
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise EditorError(f"editor {editor!r} must return a uint8 array, got {kind}")
    if image.shape != source.shape:
        raise EditorError(f"editor {editor!r} returned shape {image.shape} for a source of {source.shape}")
    if _one_colour(image) and not _one_colour(source):
        raise EditorError(f"editor {editor!r} returned an image of one colour, {image[0, 0].tolist()}")
    return frozen(image)


def frozen(image: RGB) -> RGB:
    """A read-only copy: nobody can change a picture that others already hold."""
    copy = np.array(image, dtype=np.uint8, order="C")
    copy.setflags(write=False)
    return copy


def _one_colour(image: RGB) -> bool:
    return bool((image == image[:1, :1]).all())

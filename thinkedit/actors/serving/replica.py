"""One copy of an editor, in a process of its own with its own share of a GPU."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from thinkedit import plugins
from thinkedit.actors.serving.work import PROBE, PROBE_PROMPT, EditorBroke, EditorSpec, Made, crossing
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.services import checked_edit
from thinkedit.errors import ServiceError
from thinkedit.types import RGB

log = logging.getLogger(__name__)

HUNG_S = 30.0  # after nobody waits for an edit any more, so long until its replica is replaced


class Replica:
    """The class of the Ray Serve deployment. It counts as running once it has made a real tiny edit."""

    def __init__(self, spec: EditorSpec) -> None:
        self._spec = spec
        self._editor: Editor = plugins.build("editors", spec.name, spec.options)
        # An edit in a thread can't be stopped: its slot stays taken until it ends by itself, though Serve
        # sends the next one as soon as the first is cancelled.
        self._slots = asyncio.Semaphore(spec.concurrency)
        self._stoppable = type(self._editor).edit_async is not Editor.edit_async
        self._begun: dict[object, float] = {}
        checked_edit(self._editor.edit(PROBE, PROBE_PROMPT, seed=0), PROBE, self._editor.name)

    async def edit(self, source: RGB, prompt: str, seed: int) -> Made | ServiceError:
        """The edit, or the typed error in its place."""
        try:
            async with self._slots:
                began = monotonic()
                image = checked_edit(await self._edited(source, prompt, seed), source, self._editor.name)
                return Made(image, monotonic() - began)
        except Exception as error:  # a plug-in may raise anything; it goes out typed
            failure = crossing(error)
            if isinstance(failure, EditorBroke):
                log.exception("the editor broke down")
            return failure

    def check_health(self) -> None:
        """Called by Serve, which replaces the replica when this raises."""
        oldest = min(self._begun.values(), default=monotonic())
        if monotonic() - oldest > self._spec.timeout_s + HUNG_S:
            raise RuntimeError(f"an edit has been under way for {monotonic() - oldest:.0f} s")

    async def _edited(self, source: RGB, prompt: str, seed: int) -> RGB:
        work = asyncio.ensure_future(self._editor.edit_async(source, prompt, seed=seed))
        self._begun[work] = monotonic()
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if self._stoppable:
                work.cancel()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # looked at, or asyncio complains that nobody did
            raise
        finally:
            del self._begun[work]

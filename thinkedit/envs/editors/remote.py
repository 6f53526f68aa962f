"""What editors behind a network share: one event loop with all connections, whoever calls from wherever."""

from __future__ import annotations

import asyncio
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from thinkedit.envs.blocking import Blocking
from thinkedit.envs.editors.base import Editor
from thinkedit.errors import ConfigError, EditorError
from thinkedit.types import RGB

T = TypeVar("T")


class RemoteEditor(Editor):
    """Runs `_edit` on an event loop in a thread of its own, started by the first edit.

    So connections, counts and circuit breakers are shared by callers in any thread and any loop, and
    outlive each of them. A cancelled `edit_async` cancels its request. `close` ends edits under way
    with an `EditorError`; an edit after it connects anew.
    """

    def __init__(self) -> None:
        self._thread = Blocking()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._closing = False

    @abstractmethod
    async def _edit(self, source: RGB, prompt: str, seed: int) -> RGB:
        """One edit, on the editor's own loop. Raises as `Editor.edit` does."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Let go of connections, on the editor's own loop."""

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return self._run(lambda: self._edit(source, prompt, seed))

    async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        future = self._submit(lambda: self._edit(source, prompt, seed))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._closed() from None  # before the edit could begin; nobody cancelled the caller

    def close(self) -> None:
        with self._lock:
            if self._loop is None:
                return
            self._closing = True
            self._thread.run(self._shut_down())
            self._thread.close()
            self._loop, self._closing = None, False

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        future = self._submit(work)
        try:
            return future.result()
        except CancelledError as error:
            raise self._closed() from error
        except BaseException:  # interrupted: nobody waits for the answer any more
            future.cancel()
            raise

    def _submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        with self._lock:
            if self._loop is None:
                self._loop = self._thread.run(_own_loop())
            return asyncio.run_coroutine_threadsafe(self._or_closed(work), self._loop)

    async def _or_closed(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await work()
        except asyncio.CancelledError:
            if self._closing:
                raise self._closed() from None
            raise

    def _closed(self) -> EditorError:
        return EditorError(f"editor {self.name!r} was closed while an edit was under way")

    async def _shut_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._disconnect()


async def _own_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def secret_from(variable: str | None, option: str) -> str | None:
    """The value of an environment variable that a config names; None when it names none.

    Raises:
        ConfigError: it is not set, or can't go into a header.
    """
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"{option} names the environment variable {variable!r}, which is not set")
    if not (value.isascii() and value.isprintable()) or " " in value:
        # refused here, for later the HTTP library would quote it
        raise ConfigError(f"the environment variable {variable!r} holds what no token or key may hold")
    return value

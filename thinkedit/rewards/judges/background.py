"""An event loop of a judge's own, so that its open connections serve any thread and any caller's loop."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from thinkedit.errors import JudgeError

T = TypeVar("T")


class BackgroundLoop:
    """A loop in a daemon thread, started on first use and again after a fork.

    HTTP clients belong to the loop they were opened in. Whoever asks - blocking code, several
    event loops, code that sits inside one - has the work done here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = -1
        self._stop: Callable[[], object] = lambda: None

    @property
    def running(self) -> bool:
        return self._loop is not None and self._process == os.getpid()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; interrupting the caller cancels it.

        Raises:
            JudgeError: `close` was called meanwhile.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result()
        except CancelledError as error:
            raise JudgeError("the judge was closed before it answered") from error
        except BaseException:
            future.cancel()
            raise

    async def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        """As `run`, without blocking the caller's loop; cancelling the caller cancels the work."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it's the caller who was cancelled
            raise JudgeError("the judge was closed before it answered") from error

    def close(self) -> None:
        """Cancel what is under way and stop the thread. May be called twice; a later `run` starts anew."""
        with self._lock:
            loop, running = self._loop, self.running
            self._loop = None
        if loop is not None and running:
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
            self._stop()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or not self.running:  # a fork copies the loop without its thread
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="thinkedit-judge", daemon=True)
                thread.start()
                self._loop, self._process = loop, os.getpid()
                self._stop = weakref.finalize(self, _stop, loop, thread, self._process)
            return self._loop


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    if process != os.getpid():
        return  # a forked child must not touch its parent's loop
    loop.call_soon_threadsafe(loop.stop)
    if thread is threading.current_thread():
        return  # collected from within the loop: it can stop there, but not be waited for
    thread.join()
    loop.close()

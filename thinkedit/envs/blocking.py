"""Runs coroutines for callers that have no event loop, or that already sit inside one."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Blocking:
    """An event loop in a thread of its own, started on first use.

    `asyncio.run` won't do: it refuses to run inside a notebook's or an actor's loop, and its
    loop ends with each call, and with it the open connections of editors and judges.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], object] = lambda: None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; interrupting the caller cancels it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="thinkedit-env", daemon=True)
            thread.start()
            # Also runs when nobody closes the environment, and at exit before daemon threads are frozen.
            self._stop = weakref.finalize(self, _stop, self._loop, thread)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the thread. May be called twice; a later `run` starts a new one."""
        self._loop = None
        self._stop()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is threading.current_thread():
        return  # collected from within the loop: it can stop there, but not be waited for
    thread.join()
    loop.close()

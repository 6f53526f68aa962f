"""An event loop in a thread: for callers without one, and for connections that must outlive each caller's."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """A loop in a daemon thread, started on first use and again after a fork.

    `asyncio.run` won't do: it refuses to run inside a notebook's or an actor's loop, and its loop
    ends with each call, and with it the open connections of editors and judges.

    Args:
        whose: for messages, such as "the judge".
        closed: raised to whoever waits when `close` is called.
    """

    def __init__(self, whose: str, closed: type[Exception]) -> None:
        self._whose, self._closed_error = whose, closed
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = -1
        self._stop: weakref.finalize[..., BackgroundLoop] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; interrupting the caller cancels it.

        Raises:
            Exception: the `closed` error when `close` was called meanwhile; and whatever the work raises.
        """
        future = self._submit(work)
        try:
            return future.result()
        except CancelledError as error:
            raise self._closed() from error
        except BaseException:  # interrupted: nobody waits for the answer any more
            future.cancel()
            raise

    async def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        """As `run`, without blocking the caller's loop; cancelling the caller cancels the work."""
        future = self._submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it's the caller who was cancelled
            raise self._closed() from error

    def close(self, last: Callable[[], Coroutine[Any, Any, object]] | None = None) -> None:
        """Cancel what is under way and stop the thread. May be called twice; a later `run` starts anew.

        Args:
            last: what the loop still has to do, such as closing its connections.
        """
        with self._lock:
            loop, stop, self._loop = self._running(), self._stop, None
            if loop is None or stop is None:
                return
            # Under the lock: whatever was submitted before is then cancelled, and nothing comes after.
            ended = asyncio.run_coroutine_threadsafe(_end(last), loop)
        try:
            ended.result()
        finally:
            stop()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            loop = self._running()
            if loop is None:
                loop = self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="thinkedit-background", daemon=True)
                thread.start()
                self._process = os.getpid()
                # Also runs when nobody closes it, and at exit before daemon threads are frozen.
                self._stop = weakref.finalize(self, _stop, loop, thread, self._process)
            return asyncio.run_coroutine_threadsafe(work, loop)

    def _closed(self) -> Exception:
        return self._closed_error(f"{self._whose} was closed before the work was done")

    def _running(self) -> asyncio.AbstractEventLoop | None:
        if self._process != os.getpid():  # a fork copies the loop without its thread
            return None
        return self._loop if self._stop is not None and self._stop.alive else None


async def _end(last: Callable[[], Coroutine[Any, Any, object]] | None) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    if last is not None:
        await last()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    if process != os.getpid():
        return  # a forked child must not touch its parent's loop
    loop.call_soon_threadsafe(loop.stop)
    if thread is threading.current_thread():
        return  # collected from within the loop: it can stop there, but not be waited for
    thread.join()
    loop.close()

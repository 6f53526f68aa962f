"""Works through many things, so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def each(things: Iterable[T], work: Callable[[T], Awaitable[None]], *, workers: int) -> None:
    """Await `work(thing)` for every thing, `workers` at a time; the first error ends the others."""
    waiting = iter(things)

    async def worker() -> None:
        for thing in waiting:
            await work(thing)

    tasks = [asyncio.ensure_future(worker()) for _ in range(workers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""The runs of a studio: played one after another, each in a folder, followed by any number of pages."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from thinkedit.actors.inference import Event, Options, RunStopped, ThinkingEditor
from thinkedit.actors.inference.as_json import attempt_json, result_json, thought_json
from thinkedit.actors.inference.folder import SOURCE, recorder
from thinkedit.actors.inference.records import (
    Critiqued,
    Edited,
    Finished,
    Judged,
    Rewritten,
    Started,
    Working,
)
from thinkedit.errors import ThinkEditError
from thinkedit.types import RGB

Message = dict[str, Any]


class Busy(ThinkEditError):
    """As many runs wait as may."""


class StudioRun:
    """One run: its folder, and what was told of it so far. Its pictures are there before they are told of."""

    def __init__(self, folder: Path) -> None:
        self.id, self.folder = folder.name, folder
        self.stop = asyncio.Event()
        self.over = False
        self._messages: list[Message] = []
        self._news = asyncio.Event()

    def say(self, message: Message) -> None:
        self._messages.append(message)
        self._news.set()

    def end(self) -> None:
        self.over = True
        self._news.set()

    async def follow(self, after: int, silence_s: float = 15.0) -> AsyncIterator[Message | None]:
        """Every message from number `after` on, until the run is over; None where nothing came for long."""
        while True:
            while after < len(self._messages):
                yield self._messages[after]
                after += 1
            if self.over:
                return
            news = self._news = asyncio.Event() if self._news.is_set() else self._news
            try:
                async with asyncio.timeout(silence_s):
                    await news.wait()
            except TimeoutError:
                yield None


class Runs:
    """
    Args:
        root: each run gets a folder in it.
        at_once: runs that are played at the same time; the others wait.
        waiting: runs that may wait.
        kept: finished runs that are remembered; of older ones the folder goes too, unless `forever`.
    """

    def __init__(
        self,
        thinking: ThinkingEditor,
        root: Path,
        *,
        at_once: int = 1,
        waiting: int = 16,
        kept: int = 50,
        forever: bool = False,
    ) -> None:
        self._thinking, self._root, self._forever = thinking, root, forever
        self._room, self._most, self._kept = asyncio.Semaphore(at_once), at_once + waiting, kept
        self._runs: dict[str, StudioRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> StudioRun:
        """
        Raises:
            KeyError: unknown, or forgotten.
        """
        return self._runs[name]

    def refuse_if_full(self) -> None:
        """
        Raises:
            Busy: as many runs wait as may.
        """
        if len(self._tasks) >= self._most:
            raise Busy(f"{len(self._tasks)} runs are under way or waiting; try again when one is done")

    def start(self, source: RGB, instruction: str, options: Options) -> StudioRun:
        """Play a run as soon as there is room.

        Raises:
            Busy: too many wait already.
        """
        self.refuse_if_full()
        folder = self._root / secrets.token_urlsafe(12)
        folder.mkdir(parents=True)
        run = self._runs[folder.name] = StudioRun(folder)
        task = asyncio.create_task(self._play(run, source, instruction, options))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._forget()
        return run

    async def close(self) -> None:
        """End every run, and everybody's waiting for news of one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _play(self, run: StudioRun, source: RGB, instruction: str, options: Options) -> None:
        try:
            if self._room.locked():
                run.say({"type": "waiting"})
            if not await self._room_or_stop(run):
                run.say({"type": "stopped", "detail": ""})
                return
            try:
                await self._played(run, source, instruction, options)
            finally:
                self._room.release()
        except asyncio.CancelledError:
            run.say({"type": "failed", "detail": "the studio was closed"})
            raise
        except BaseException:
            run.say({"type": "failed", "detail": "a fault in the studio; what it printed tells more"})
            raise
        finally:
            run.end()

    async def _room_or_stop(self, run: StudioRun) -> bool:
        """Wait until there is room, which is taken then, or the run is stopped; whether there is."""
        room, stop = asyncio.ensure_future(self._room.acquire()), asyncio.ensure_future(run.stop.wait())
        try:
            await asyncio.wait({room, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not room.done():
                room.cancel()
        return room.done()

    async def _played(self, run: StudioRun, source: RGB, instruction: str, options: Options) -> None:
        record = recorder(run.folder)
        told: asyncio.Queue[Event | None] = asyncio.Queue()

        async def write() -> None:
            while (event := await told.get()) is not None:
                await asyncio.to_thread(record, event)
                run.say(message(event))

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            try:
                await self._thinking.edit(source, instruction, options, tell=told.put_nowait, stop=run.stop)
                fault: ThinkEditError | None = None
            except ThinkEditError as error:
                fault = error
            told.put_nowait(None)
        if fault is not None:
            kind = "stopped" if isinstance(fault, RunStopped) else "failed"
            run.say({"type": kind, "detail": str(fault)})

    def _forget(self) -> None:
        """Drop the oldest finished runs beyond `kept`."""
        over = [run for run in self._runs.values() if run.over]
        for run in over[: max(0, len(over) - self._kept)]:
            del self._runs[run.id]
            if not self._forever:
                shutil.rmtree(run.folder)


def message(event: Event) -> Message:
    """An event for the page."""
    match event:
        case Started(source=source, instruction=instruction, options=options):
            size = [source.shape[1], source.shape[0]]
            about = {"instruction": instruction, "mode": options.mode}
            return {"type": "started", "file": SOURCE, "size": size, **about}
        case Working(who=who):
            return {"type": "working", "who": who}
        case Rewritten(thought=thought):
            return {"type": "rewritten", "critique": thought_json(thought)}
        case Edited(attempt=attempt) | Judged(attempt=attempt) | Critiqued(attempt=attempt):
            kind = type(event).__name__.casefold()
            return {"type": kind, "index": attempt.index, "edit": attempt_json(attempt)}
        case Finished(result=result):
            told = result_json(result)
            end = {key: told[key] for key in ("chosen", "stop", "detail", "select")}
            return {"type": "finished", "failed": result.stop.failed} | end

"""The front of a served editor on loopback, without Ray: the editor runs in this process."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import Any, Self

import numpy as np
import uvicorn

from thinkedit.actors.serving.address import listen
from thinkedit.actors.serving.front import build_front
from thinkedit.actors.serving.service import EditService
from thinkedit.actors.serving.work import PROBE_PROMPT, Made
from thinkedit.types import RGB


def shifted(source: RGB, prompt: str, seed: int) -> RGB:
    """An edit that depends on everything."""
    return source + np.uint8((seed + len(prompt)) % 250 + 1)


class LocalCalls:
    """One slot. `fails` is raised instead of the next edits; `asked` is a record of edits begun."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.fails: Exception | None = None
        self.running = 1
        self.asked: list[tuple[str, int]] = []
        self.cancelled = 0
        self._slot = asyncio.Semaphore(1)

    @property
    def probes(self) -> int:
        return sum(prompt == PROBE_PROMPT for prompt, _ in self.asked)

    async def edit(self, source: RGB, prompt: str, seed: int) -> Made:
        try:
            async with self._slot:
                self.asked.append((prompt, seed))
                await asyncio.sleep(self.delay_s)
                if self.fails is not None:
                    raise self.fails
                return Made(shifted(source, prompt, seed), self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def replicas(self) -> int:
        return self.running


class FrontServer:
    def __init__(self, calls: LocalCalls | None = None, *, timeout_s: float = 30.0, **options: Any) -> None:
        self.calls = calls or LocalCalls()
        self._service = EditService(self.calls, concurrency=1, timeout_s=timeout_s)
        front = build_front(self._service, gpus=0.0, timeout_s=timeout_s, **options)
        self._socket = listen("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(uvicorn.Config(front, log_level="warning", access_log=False, ws="none"))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = monotonic() + 20
        while not self._server.started and monotonic() < deadline:
            threading.Event().wait(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
        self._service.close()

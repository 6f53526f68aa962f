"""What the front knows of its edits: equal ones are made once, all are counted, one shows health."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from math import ceil
from time import monotonic
from typing import Protocol

from thinkedit.actors.serving.metrics import Metrics
from thinkedit.actors.serving.work import (
    PROBE,
    PROBE_PROMPT,
    EditorBroke,
    EditorBusy,
    Made,
    ReplicasLost,
)
from thinkedit.envs.editors.cache import CachedEditor
from thinkedit.envs.editors.remote import RemoteEditor
from thinkedit.errors import ServiceError, ServiceTimeout
from thinkedit.types import RGB

FRESH_S = 10.0  # an edit proves health for so long
_REPLICAS_S = 1.0  # for which their number is believed
_MEMORY = 0.8  # of the running mean of edit seconds
_OUTCOMES = {ServiceTimeout: "timeout", EditorBroke: "broken", EditorBusy: "busy", ReplicasLost: "lost"}


@dataclass(frozen=True, slots=True)
class Load:
    """replicas: that run. running, waiting: edits."""

    replicas: int
    running: int
    waiting: int


class Calls(Protocol):
    """What the front needs of the replicas; `calls.ServeCalls` is it."""

    async def edit(self, source: RGB, prompt: str, seed: int) -> Made:
        """
        Raises:
            ServiceError: there is none.
        """

    async def replicas(self) -> int:
        """How many are running."""


class EditService:
    """
    Args:
        concurrency: edits at a time in one replica.
        timeout_s: in which an edit is made, or never.
    """

    def __init__(self, calls: Calls, *, concurrency: int, timeout_s: float) -> None:
        self._calls, self._concurrency, self._timeout_s = calls, concurrency, timeout_s
        self._counted = _Counted(calls)
        # In memory only: for clients that ask at the same time, or lost the answer and ask again.
        self._joined = CachedEditor(self._counted)
        self._replicas, self._asked_at = 0, float("-inf")
        self._probing = asyncio.Lock()
        self._told = 0  # of those that joined, in `metrics`

    async def edit(self, source: RGB, prompt: str, seed: int) -> RGB:
        """The edit, made once however many ask for it.

        Raises:
            ServiceError: there is none.
        """
        return await self._joined.edit_async(source, prompt, seed=seed)

    async def ill(self) -> str:
        """What is wrong; empty if an edit was made lately, for which one is made if need be."""
        async with self._probing:
            load = await self.load()
            if not load.replicas:
                return "no replica is running"
            # behind a queue a probe would tell no sooner than the next edit does
            fresh_s = self._timeout_s if load.waiting else FRESH_S
            if monotonic() - self._counted.last_good < fresh_s:
                return ""
            try:
                await self._counted.edit_async(PROBE, PROBE_PROMPT, seed=random.randrange(2**31))
            except ServiceError as error:
                return f"no edit could be made: {error}"
            return ""

    async def load(self) -> Load:
        """How busy it is. Which edits run is worked out: a replica with room does not idle."""
        if monotonic() - self._asked_at > _REPLICAS_S:
            self._replicas, self._asked_at = await self._calls.replicas(), monotonic()
        under_way = self._counted.under_way
        running = min(under_way, self._replicas * self._concurrency)
        return Load(self._replicas, running, under_way - running)

    async def retry_after_s(self) -> int:
        """When it is worth asking again, at a guess: after a replica's next edit."""
        load = await self.load()
        return max(1, ceil(self._counted.mean_s / max(1, load.replicas * self._concurrency)))

    async def metrics(self) -> bytes:
        """In Prometheus' format."""
        load, metrics = await self.load(), self._counted.metrics
        metrics.waiting.set(load.waiting)
        metrics.running.set(load.running)
        metrics.replicas.set(load.replicas)
        metrics.utilisation.set(load.running / max(1, load.replicas * self._concurrency))
        joined = self._joined.stats.joined + self._joined.stats.hits
        metrics.joined.inc(joined - self._told)
        self._told = joined
        return metrics.text()

    def close(self) -> None:
        """Ends edits under way with an error."""
        self._joined.close()


class _Counted(RemoteEditor):
    """The replicas as one editor that keeps count."""

    name = "replicas"

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls
        self.metrics = Metrics()
        self.under_way = 0
        self.mean_s = 1.0
        self.last_good = float("-inf")

    async def _edit(self, source: RGB, prompt: str, seed: int) -> RGB:
        outcome = "broken"
        self.under_way += 1
        try:
            made = await self._calls.edit(source, prompt, seed)
            outcome = "ok"
        except ServiceError as error:
            outcome = _OUTCOMES.get(type(error), "failed")
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self.under_way -= 1
            self.metrics.edits.labels(outcome).inc()
        self.last_good = monotonic()
        self.mean_s = _MEMORY * self.mean_s + (1 - _MEMORY) * made.seconds
        self.metrics.seconds.observe(made.seconds)
        return made.picture

    async def _disconnect(self) -> None:
        """Ray's handle is shared by the process and stays."""

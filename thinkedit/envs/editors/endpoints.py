"""Several servers of one editor: the least busy gets the next edit, and a sick one is left alone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from thinkedit.envs.editors.faults import Again, Fault

log = logging.getLogger(__name__)


class State(StrEnum):
    """Of an endpoint's circuit breaker."""

    CLOSED = "closed"  # healthy: gets edits
    OPEN = "open"  # failed too often: gets nothing until its rest is over
    PROBING = "probing"  # one probe is under way and decides


@dataclass(slots=True, eq=False)
class Endpoint:
    """One server.

    outstanding: requests it has not answered yet.
    failures: failed requests in a row.
    rest_until: loop time before which it gets nothing (open: before which it is not probed).
    """

    url: str
    outstanding: int = 0
    failures: int = 0
    state: State = State.CLOSED
    rest_until: float = 0.0
    last_fault: str = ""


class Pool:
    """Hands out endpoints to requests. All methods run on one event loop.

    After `trip_after` failures in a row an endpoint's circuit opens. `rest_s` later (give or take a
    quarter) the next request that comes along has it probed; a good probe closes the circuit again.

    Args:
        probe: makes a real edit there; raises `Fault` when that fails.
        limit: requests that one endpoint gets at a time.
    """

    def __init__(
        self,
        urls: Sequence[str],
        probe: Callable[[Endpoint], Awaitable[None]],
        *,
        limit: int,
        trip_after: int,
        rest_s: float,
        rng: random.Random | None = None,
    ) -> None:
        self.endpoints = tuple(Endpoint(url) for url in urls)
        self._probe = probe
        self._limit, self._trip_after, self._rest_s = limit, trip_after, rest_s
        self._rng = rng or random.Random()
        self._changed = asyncio.Event()  # replaced at each change, so that all who wait look again
        self._probes: set[asyncio.Task[None]] = set()
        self._probes_failed = 0

    async def take(
        self, deadline: float, avoid: Collection[Endpoint] = (), barred: Collection[Endpoint] = ()
    ) -> Endpoint:
        """The least busy healthy endpoint, waiting for one if need be; give it back with `release`.

        Args:
            deadline: loop time; a wait that is known to end later is not begun.
            avoid: taken only if there is no other.
            barred: never taken.

        Raises:
            Fault: all are sick and the next probe failed too, or all want to be left alone for longer.
        """
        failed_before = self._probes_failed
        allowed = [endpoint for endpoint in self.endpoints if endpoint not in barred]
        while True:
            endpoint = self.take_now(avoid, barred)
            if endpoint is not None:
                return endpoint
            sick = [endpoint for endpoint in allowed if endpoint.state is not State.CLOSED]
            if len(sick) == len(allowed) and self._probes_failed > failed_before:
                raise Fault(f"no healthy endpoint; {sick[0].last_fault}")
            resting = [e.rest_until for e in allowed if e.rest_until > self._now()]
            if len(resting) == len(allowed) and min(resting) >= deadline:
                raise Fault(
                    f"no endpoint takes an edit before the deadline; {allowed[0].last_fault}",
                    again=Again.NEVER,
                    timeout=True,
                )
            await self._change(min(resting, default=None))

    def take_now(
        self, avoid: Collection[Endpoint] = (), barred: Collection[Endpoint] = ()
    ) -> Endpoint | None:
        """As `take`, without waiting: None where `take` would wait."""
        self._probe_the_rested()
        free = [e for e in self.endpoints if self._free(e) and e not in barred]
        free = [e for e in free if e not in avoid] or free
        if not free:
            return None
        least = min(endpoint.outstanding for endpoint in free)
        chosen = self._rng.choice([endpoint for endpoint in free if endpoint.outstanding == least])
        chosen.outstanding += 1
        return chosen

    def release(self, endpoint: Endpoint) -> None:
        endpoint.outstanding -= 1
        self._notify()

    def another(self, than: Collection[Endpoint]) -> bool:
        """Whether a healthy endpoint outside `than` could take a request now."""
        return any(self._free(endpoint) for endpoint in self.endpoints if endpoint not in than)

    def succeeded(self, endpoint: Endpoint) -> None:
        endpoint.failures = 0

    def failed(self, endpoint: Endpoint, fault: Fault) -> None:
        """Count a fault against the endpoint, if it speaks against its health; let it rest as it asked."""
        endpoint.last_fault = str(fault)
        if fault.wait_s is not None and endpoint.state is State.CLOSED:
            # later by up to a tenth, so that not all return at once
            self._rest(endpoint, fault.wait_s * self._rng.uniform(1, 1.1))
        if not fault.sick:
            return
        endpoint.failures += 1
        if endpoint.state is State.CLOSED and endpoint.failures >= self._trip_after:
            log.warning("%s failed %d times in a row: %s", endpoint.url, endpoint.failures, fault)
            self._open(endpoint)

    async def close(self) -> None:
        """Stop the probes."""
        for task in self._probes:
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    def _free(self, endpoint: Endpoint) -> bool:
        return (
            endpoint.state is State.CLOSED
            and endpoint.outstanding < self._limit
            and endpoint.rest_until <= self._now()
        )

    def _open(self, endpoint: Endpoint) -> None:
        endpoint.state = State.OPEN
        endpoint.rest_until = 0.0
        self._rest(endpoint, self._rest_s * self._rng.uniform(0.75, 1.25))

    def _rest(self, endpoint: Endpoint, seconds: float) -> None:
        endpoint.rest_until = max(endpoint.rest_until, self._now() + seconds)
        self._notify()

    def _probe_the_rested(self) -> None:
        for endpoint in self.endpoints:
            if endpoint.state is State.OPEN and endpoint.rest_until <= self._now():
                endpoint.state = State.PROBING
                task = asyncio.create_task(self._probe_one(endpoint))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)

    async def _probe_one(self, endpoint: Endpoint) -> None:
        try:
            await self._probe(endpoint)
        except BaseException as error:
            self._probes_failed += 1
            endpoint.last_fault = f"probe: {error}"
            self._open(endpoint)
            if not isinstance(error, Fault):
                raise
            log.warning("%s is still sick: %s", endpoint.url, error)
        else:
            log.info("%s is well again", endpoint.url)
            endpoint.state, endpoint.failures, endpoint.rest_until = State.CLOSED, 0, 0.0
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self, at: float | None) -> None:
        """Until something changed, or until loop time `at`."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(at):
                await self._changed.wait()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

"""Values that are made once, by whomever and however often they are asked for."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from thinkedit.envs.editors.disk import Disk

T = TypeVar("T")
V = TypeVar("V")
log = logging.getLogger(__name__)

_POLL_S = 0.05  # how often a process looks whether another has made what it waits for


@dataclass(slots=True)
class CacheStats:
    """hits: answered from memory or disk. joined: answered by a call under way in this process, or
    with an equal key of the same batch. misses: asked for real. corrupt: unreadable files removed (each
    also counts as a miss)."""

    hits: int = 0
    joined: int = 0
    misses: int = 0
    corrupt: int = 0


class Codec(ABC, Generic[V]):
    """How a value lies in a file, and what it weighs."""

    suffix: str

    @abstractmethod
    def encode(self, value: V) -> bytes: ...

    @abstractmethod
    def decode(self, data: bytes) -> V:
        """
        Raises:
            ValueError: the data is damaged.
        """

    @abstractmethod
    def weight(self, value: V) -> int:
        """Bytes in memory, about."""

    def lasting(self, value: V) -> bool:
        """Whether it may be kept; otherwise only those who wait for it now get it."""
        del value
        return True


class _Abandoned(Exception):
    """Whoever was to make the value can't; whoever waits may take over."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """The right, and the duty, to make a key's value. lock: that of the disk, None without one."""

    key: str
    lock: int | None


@dataclass(frozen=True, slots=True)
class _Found(Generic[V]):
    value: V


class _Async:
    """How to wait on an event loop."""

    async def call(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(work, *args)

    async def result(self, flight: Future[T]) -> T:
        return await asyncio.wrap_future(flight)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Blocking(_Async):
    """How to wait without one: never suspends, so that `_run` needs none."""

    async def call(self, work: Callable[..., T], *args: Any) -> T:
        return work(*args)

    async def result(self, flight: Future[T]) -> T:
        return flight.result()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SingleFlight(Generic[V]):
    """Looks in memory, then on the disk; what is in neither is made by one of all who ask for it.

    That holds between tasks, threads, and processes with the same disk. If the one who makes it
    is cancelled or killed, another takes over. Errors reach all who wait in this process, and are
    never kept.

    Args:
        memory_bytes: values used least lately are dropped from memory beyond it.
    """

    def __init__(self, codec: Codec[V], disk: Disk | None, memory_bytes: int) -> None:
        self.stats = CacheStats()
        self._codec, self._disk = codec, disk
        self._memory: OrderedDict[str, tuple[V, int]] = OrderedDict()
        self._room = memory_bytes
        self._flights: dict[str, Future[V]] = {}
        self._lock = threading.Lock()  # guards memory, room, flights and stats; never held over I/O

    def get(self, key: str, make: Callable[[], V]) -> V:
        async def made() -> V:
            return make()

        return _run(self._get(key, made, _Blocking()))

    async def get_async(self, key: str, make: Callable[[], Awaitable[V]]) -> V:
        return await self._get(key, make, _Async())

    async def get_many(
        self, keys: Sequence[str], make: Callable[[Sequence[int]], Awaitable[Sequence[V | Exception]]]
    ) -> list[V | Exception]:
        """All keys at once; a failure is its exception. Equal keys get the same, failures too.

        `make` is called once with the positions of what is missing, and once more for each that
        others were to make and didn't.
        """
        results: dict[int, V | Exception] = {}
        claims: dict[int, _Claim] = {}
        firsts: dict[str, int] = {}
        for k, key in enumerate(keys):
            firsts.setdefault(key, k)
        try:
            for key, k in firsts.items():
                match await self._claim(key, _Async(), patient=False):
                    case _Found(value):
                        results[k] = value
                    case _Claim() as claim:
                        claims[k] = claim
            missing = list(claims)
            for k, made in zip(missing, await make(missing) if missing else (), strict=True):
                results[k] = made
                if isinstance(made, Exception):
                    self._fail(claims.pop(k), made)
                else:
                    await self._settle(claims.pop(k), made, _Async())
        except BaseException as error:
            for claim in claims.values():
                self._fail(claim, error)
            raise

        async def other(k: int) -> None:
            async def alone() -> V:
                [made] = await make([k])
                if isinstance(made, Exception):
                    raise made
                return made

            try:
                results[k] = await self.get_async(keys[k], alone)
            except Exception as error:  # noqa: BLE001 - in a batch a failure is its exception
                results[k] = error

        # Only now: who waits for others while they wait for him waits for ever.
        await asyncio.gather(*(other(k) for k in firsts.values() if k not in results))
        for _ in range(len(keys) - len(firsts)):
            self._count("joined")
        return [results[firsts[key]] for key in keys]

    async def _get(self, key: str, make: Callable[[], Awaitable[V]], waits: _Async) -> V:
        while True:
            found = await self._claim(key, waits)
            if isinstance(found, _Found):
                return found.value
            if isinstance(found, _Claim):
                break
            assert found is not None, "the patient wait for other processes"
            try:
                value = await waits.result(found)
            except _Abandoned:
                continue
            self._count("joined")
            return value
        try:
            value = await make()
        except BaseException as error:
            self._fail(found, error)
            raise
        await self._settle(found, value, waits)
        return value

    async def _claim(
        self, key: str, waits: _Async, *, patient: bool = True
    ) -> _Found[V] | Future[V] | _Claim | None:
        """What there is of a key: the value, a call under way in this process, or the claim to make it.

        Where another process is making it, the patient wait until it has ended; others get None.
        """
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                self.stats.hits += 1
                return _Found(self._memory[key][0])
            if key in self._flights:
                return self._flights[key]
            flight = self._flights[key] = Future()
            flight.set_running_or_notify_cancel()  # from now on no waiter can cancel it
        claim = _Claim(key, None)
        try:
            if self._disk is not None:
                value = await waits.call(self._read, key)
                if value is None:
                    # Not in a thread: a task cancelled meanwhile would leave the lock to nobody.
                    while (lock := self._disk.try_lock(key)) is None:
                        if not patient:
                            self._fail(claim, _Abandoned())
                            return None
                        await waits.sleep(_POLL_S)
                    claim = _Claim(key, lock)
                    value = await waits.call(self._read, key)  # its last holder may have made it
                if value is not None:
                    self._count("hits")
                    self._land(claim, value)
                    return _Found(value)
        except BaseException as error:
            self._fail(claim, error)
            raise
        self._count("misses")
        return claim

    async def _settle(self, claim: _Claim, value: V, waits: _Async) -> None:
        """Keep the value and hand it to all who wait."""
        try:
            if self._disk is not None and self._codec.lasting(value):
                await waits.call(self._write, claim.key, value)
            self._land(claim, value)
        except BaseException as error:
            self._fail(claim, error)
            raise

    def _land(self, claim: _Claim, value: V) -> None:
        weight = self._codec.weight(value) if self._codec.lasting(value) else None
        self._unlock(claim)
        with self._lock:
            if weight is not None:
                self._memory[claim.key] = value, weight
                self._room -= weight
            while self._room < 0 and len(self._memory) > 1:
                _, (_, freed) = self._memory.popitem(last=False)
                self._room += freed
            flight = self._flights.pop(claim.key)
        flight.set_result(value)

    def _fail(self, claim: _Claim, error: BaseException) -> None:
        with self._lock:
            flight = self._flights.pop(claim.key)
        flight.set_exception(error if isinstance(error, Exception) else _Abandoned())
        self._unlock(claim)

    def _unlock(self, claim: _Claim) -> None:
        if self._disk is not None and claim.lock is not None:
            self._disk.unlock(claim.key, claim.lock)

    def _read(self, key: str) -> V | None:
        assert self._disk is not None
        data = self._disk.read(key)
        if data is None:
            return None
        try:
            return self._codec.decode(data)
        except ValueError as error:
            log.warning("%s is damaged and will be made again: %s", self._disk.path(key), error)
            self._disk.remove(key)
            self._count("corrupt")
            return None

    def _write(self, key: str, value: V) -> None:
        assert self._disk is not None
        self._disk.write(key, self._codec.encode(value))

    def _count(self, what: str) -> None:
        with self._lock:
            setattr(self.stats, what, getattr(self.stats, what) + 1)


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that is never suspended."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    raise AssertionError("it was suspended")

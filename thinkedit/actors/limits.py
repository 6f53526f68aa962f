"""One limiter for a whole Ray cluster: a named actor that every worker process of a run asks."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path

import ray

from thinkedit.configs.schema import Config, LimitsConfig
from thinkedit.errors import ThinkEditError
from thinkedit.rewards.limits.ledger import LEDGER
from thinkedit.rewards.limits.limiter import Limiter, is_metered
from thinkedit.rewards.limits.meter import Ask, Permit, Usage

_WAITING = 100_000  # calls at once that the actor has an ear for


class LimiterActor:
    """The limiter in a process of its own. What it refuses it returns: Ray would rewrite a raised error.

    A permit is given when its moment has come. So when the actor dies and Ray starts it anew, no
    promise of the old one adds to those of the new, and whoever was waiting asks again.
    """

    def __init__(self, config: LimitsConfig, ledger: Path) -> None:
        self._limiter = Limiter(config, ledger)

    async def reserve(self, ask: Ask, patience_s: float) -> Permit | ThinkEditError:
        try:
            return await self._limiter.reserve(ask, patience_s)
        except ThinkEditError as error:
            return error

    async def settle(self, permit: Permit, usage: Usage | None, failed: bool) -> None:
        self._limiter.settle(permit, usage, failed=failed)

    async def withdraw(self, permit: Permit) -> None:
        self._limiter.withdraw(permit)

    async def flush(self) -> None:
        await asyncio.to_thread(self._limiter.flush)


class ClusterLimiter:
    """The actor as a `Gate`. Works in any process of the Ray job, in any thread and event loop.

    The actor lives as long as the process that asked for it first.
    """

    def __init__(self, config: LimitsConfig, ledger: Path) -> None:
        self._actor = (
            ray.remote(LimiterActor)
            .options(
                name=f"limiter:{ledger}",
                get_if_exists=True,
                num_cpus=0,
                max_concurrency=_WAITING,
                max_restarts=-1,
                max_task_retries=-1,
            )
            .remote(config, ledger)
        )

    async def reserve(self, ask: Ask, patience_s: float) -> Permit:
        future: Future[Permit | ThinkEditError] = self._actor.reserve.remote(ask, patience_s).future()
        try:
            answer = await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            future.add_done_callback(self._give_back)  # nobody will use it
            raise
        if isinstance(answer, ThinkEditError):
            raise answer
        return answer

    def settle(self, permit: Permit, usage: Usage | None, *, failed: bool) -> None:
        self._actor.settle.remote(permit, usage, failed)

    def withdraw(self, permit: Permit) -> None:
        self._actor.withdraw.remote(permit)

    def flush(self) -> None:
        ray.get(self._actor.flush.remote())

    def _give_back(self, future: Future[Permit | ThinkEditError]) -> None:
        if future.exception() is None and isinstance(permit := future.result(), Permit):
            self.withdraw(permit)


def cluster_limiter(config: Config) -> ClusterLimiter | None:
    """The limiter of a run; None where nothing is limited or priced.

    The first to ask must outlive the others: in training it is the trainer, before its workers.
    """
    if not is_metered(config.limits):
        return None
    return ClusterLimiter(config.limits, (Path(config.run_dir) / LEDGER).resolve())

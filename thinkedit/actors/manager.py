"""verl's manager of rollout workers, with our worker class (`agent_loop_manager_class`)."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from thinkedit.actors.agent_loop import flush_stores


@ray.remote
class ThinkEditWorker(AgentLoopWorkerTQ.__ray_actor_class__):  # type: ignore[misc]  # verl is untyped
    """Runs the episodes of its share of a batch, `rollout.concurrency` at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gate = asyncio.Semaphore(int(self.config.data.thinkedit.concurrency))
        self._unfinished = 0

    async def _run_agent_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._unfinished += 1
        try:
            async with self._gate:
                return await super()._run_agent_loop(*args, **kwargs)
        finally:
            self._unfinished -= 1
            if not self._unfinished:
                # Before verl hears that the last group is finished: what is trained on is on disk.
                await asyncio.to_thread(flush_stores)


class ThinkEditManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """Deals the groups of a batch out to the workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ThinkEditWorker  # set late: verl's __init__ overwrites it


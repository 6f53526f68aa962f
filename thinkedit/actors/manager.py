"""verl's manager of rollout workers, with our worker class (`agent_loop_manager_class`)."""

from __future__ import annotations

import asyncio
from typing import Any

import hydra
import ray
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from thinkedit.actors.agent_loop import EditLoop, flush_stores


class ThinkEditWorker(AgentLoopWorkerTQ.__ray_actor_class__):  # type: ignore[misc]  # verl is untyped
    """Runs the episodes of its share of a batch, `rollout.concurrency` at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gate = asyncio.Semaphore(int(self.config.data.thinkedit.concurrency))
        self._unfinished = 0
        self._loop: EditLoop | None = None

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = False,
        **row: Any,
    ) -> None:
        """One episode, and its samples into the queue.

        verl builds a loop object per episode with hydra's instantiate, which costs more than a
        procedural edit; ours keeps nothing between episodes, so one serves them all.
        """
        self._unfinished += 1
        try:
            async with self._gate:
                samples = await self._edit_loop().run(sampling_params, **row)
                await self._agent_loop_postprocess(samples, trajectory["validate"], **row)
        finally:
            self._unfinished -= 1
            if not self._unfinished:
                # Before verl hears that the last group is finished: what is trained on is on disk.
                await asyncio.to_thread(flush_stores)

    def _edit_loop(self) -> EditLoop:
        if self._loop is not None:
            return self._loop
        entry = OmegaConf.load(self.rollout_config.agent.agent_loop_config_path)[0]
        loop = hydra.utils.instantiate(
            entry,
            trainer_config=DictConfigWrap(config=self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            hf_model_type=self.hf_model_type,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(self.config.data),
        )
        assert isinstance(loop, EditLoop)
        self._loop = loop
        return loop


class ThinkEditManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """Deals the groups of a batch out to the workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(ThinkEditWorker)  # set late: verl's __init__ overwrites it


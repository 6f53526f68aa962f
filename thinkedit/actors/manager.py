"""verl's manager of rollout workers, with our worker class (`agent_loop_manager_class`)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from typing import Any

import hydra
import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from thinkedit.actors.agent_loop import FEATURES, EditLoop, TurnSample, flush_stores
from thinkedit.actors.limits import cluster_limiter
from thinkedit.configs.load import load_config
from thinkedit.envs.canaries import Canaries, CanaryReport
from thinkedit.errors import ThinkEditError

logger = logging.getLogger(__name__)


class RolloutWorkerDied(ThinkEditError):
    """A process that played episodes is gone, and they with it."""


class ThinkEditWorker(AgentLoopWorkerTQ.__ray_actor_class__):  # type: ignore[misc]  # verl is untyped
    """Runs the episodes of its share of a batch, `rollout.concurrency` at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gate = asyncio.Semaphore(int(self.config.data.thinkedit.concurrency))
        self._under_way: Counter[str] = Counter()
        self._finished: defaultdict[str, list[tuple[list[TurnSample], dict[str, Any]]]] = defaultdict(list)
        self._loop: EditLoop | None = None
        self._canaries: Canaries | None = None

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
        group, loop = str(row["uid"]), self._edit_loop()
        self._under_way[group] += 1
        try:
            async with self._gate:
                try:
                    samples = await loop.run(sampling_params, **row)
                except Exception:  # engines and stores may raise anything; verl would drop it unseen
                    logger.exception("an episode of group %s raised; it counts as failed", group)
                    samples = [loop.failed_sample(**row)]
            self._finished[group].append((samples, row))
        finally:
            self._under_way[group] -= 1
            if not self._under_way[group]:
                del self._under_way[group]
                # Before verl hears that the group is finished: what is trained on is on disk.
                if not self._under_way:
                    await asyncio.to_thread(flush_stores)
                await self._put(self._finished.pop(group, []), validate=bool(trajectory["validate"]))

    async def _put(self, episodes: list[tuple[list[TurnSample], dict[str, Any]]], *, validate: bool) -> None:
        """A group's samples into the queue, all at once (verl makes one transfer per episode).

        Keys, fields and tags are those of verl's `_agent_loop_postprocess`.
        """
        keys, fields, tags = [], [], []
        for samples, row in episodes:
            for place, sample in enumerate(samples):
                keys.append(f"{row['uid']}_{row['session_id']}_{place}")
                field = self._field(sample, row)
                fields.append(field)
                lengths = field["prompts"].size(0), field["responses"].size(0)
                versions = {
                    name: sample.extra_fields.get(name) for name in ("min_global_steps", "max_global_steps")
                }
                tags.append(
                    {
                        "status": "success",
                        "prompt_len": lengths[0],
                        "response_len": lengths[1],
                        "seq_len": sum(lengths),
                        "global_steps": row["global_steps"],
                        **versions,
                    }
                )
        if keys:
            await tq.async_kv_batch_put(
                keys=keys,
                fields=list_of_dict_to_tensordict(fields),
                tags=tags,
                partition_id="val" if validate else "train",
            )

    def _field(self, sample: TurnSample, row: dict[str, Any]) -> dict[str, Any]:
        features = dict((sample.multi_modal_data or {}).get(FEATURES, {}))
        field = sample.as_dict() | row
        field.pop("multi_modal_data", None)
        input_ids = torch.cat([field["prompts"], field["responses"]])
        grid = features.get("image_grid_thw")
        inputs = {name: features[name] for name in ("pixel_values", "image_grid_thw") if name in features}
        positions = self._compute_position_ids(
            input_ids[None], torch.ones_like(input_ids)[None], {**inputs, "mm_token_type_ids": True}
        )
        if grid is not None:
            inputs["images_seqlens"] = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
        return field | {
            "loss_mask": field["response_mask"],
            "input_ids": input_ids,
            "position_ids": positions.squeeze(0),
            "multi_modal_inputs": inputs,
        }

    async def stay(self) -> None:
        """Ends only with the worker."""
        await asyncio.Event().wait()

    async def ask_canaries(self) -> CanaryReport:
        """Put pairs of known order to the judge, beside the episodes of the step."""
        if self._canaries is None:
            self._canaries = Canaries.from_parts(self._edit_loop().studio.parts)
        return await self._canaries.ask()

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
    """Deals the groups of a batch out to the workers, and has the judge looked at now and then."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(ThinkEditWorker)  # set late: verl's __init__ overwrites it
        config = load_config(self.config.data.thinkedit.config)
        # Before the workers ask for it: it lives as long as who asked first.
        self._limiter = cluster_limiter(config)
        if self._limiter is not None:
            self._limiter.flush()  # a ledger that can't be read ends the run now, not every call later
        self._watch = config.judge.canaries
        self._lives: list[Any] = []  # a call to each worker that ends only with it
        self._asked: Any = None  # a report on its way
        self._asked_once = False

    def generate_sequences(self, prompts: TensorDict) -> None:
        """As verl's; every `judge.canaries.every` steps, and at a start, a worker asks the judge too."""
        every = self._watch.every
        if every and "validate" not in prompts and self._asked is None:
            step = int(prompts["global_steps"])
            if not self._asked_once or step % every == 0:
                self._asked, self._asked_once = self.agent_loop_workers[0].ask_canaries.remote(), True
        super().generate_sequences(prompts)

    def check_workers(self) -> None:
        """
        Raises:
            RolloutWorkerDied: one has; nobody would ever finish its episodes.
        """
        self._lives = self._lives or [worker.stay.remote() for worker in self.agent_loop_workers]
        ended, _ = ray.wait(self._lives, timeout=0)
        for life in ended:
            try:
                ray.get(life)
            except ray.exceptions.RayActorError as error:
                raise RolloutWorkerDied(
                    f"rollout worker {self._lives.index(life)} of {len(self._lives)} died: {error}. Start "
                    "the run again, it resumes; if it dies again, the machine may be short of memory: lower "
                    "rollout.concurrency or rollout.workers"
                ) from None

    def judge_metrics(self) -> dict[str, float]:
        """Figures of the canaries asked in this step, none where none were; waits for the answers.

        Raises:
            DataError: the pairs can't be read.
        """
        if self._asked is None:
            return {}
        try:
            report: CanaryReport = ray.get(self._asked)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        finally:
            self._asked = None
        if alarm := report.alarm(self._watch.warn_below):
            logger.warning(alarm)
        return report.metrics()

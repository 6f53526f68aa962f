"""verl's synchronous V1 trainer with per-turn samples: the learner's side of a step.

Registered under `verl_config.TRAINER`. What is overridden, and why:

- `_init_resource_pool_mgr`: our worker class (positions, forbidden tokens, probability gap);
- `_get_required_batch_multiple`, `_update_actor`: a fixed number of optimiser updates a step,
  however many turns the episodes took (verl's mini-batch is a fixed number of rows);
- `_compute_advantage`: advantages of turns from `thinkedit.advantages` plug-ins, which see every
  row with its group, state, turn and validity (verl's estimators see tokens and a uid);
- `_compute_metrics`: figures of this step, those of the judge's canaries among them, into
  metrics.jsonl, which survives a resume (verl's file logger truncates);
- `_validate`: the step's own figures for held-out tasks, under `val/` (verl's read rewards of tokens);
- `on_init_end`: a resumed run does not look at them before its first step again;
- `fit`: the run ends with a rollout worker that dies (verl would wait for its episodes for ever);
- `_balance_batch`: a clear end when nothing could be sampled;
- `get_llm_client`: no load balancing where there is one server.
"""

from __future__ import annotations

import logging
import math
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.utils.padding import response_to_nested

from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config, updates_in_a_step
from thinkedit.errors import ThinkEditError
from thinkedit.learner import verl_config
from thinkedit.learner.advantages import estimate, spread
from thinkedit.learner.launch import append_metrics
from thinkedit.learner.samples import (
    EXTRA_FIELD,
    FailureGuard,
    TooManyFailures,
    TurnRecord,
    advantage_rows,
    step_metrics,
)
from thinkedit.learner.worker import GAP_MAX, GAP_MEAN, LearnerWorker

logger = logging.getLogger(__name__)


class GapTooWide(ThinkEditError):
    """Rollout and trainer disagree on the probability of what was sampled."""


@register_trainer(verl_config.TRAINER)
class ThinkEditTrainer(PPOTrainerSync):  # type: ignore[misc]  # verl is untyped
    """One step: sample episodes, score turns against siblings, update, send the weights."""

    def __init__(self, config: DictConfig) -> None:
        # verl compares the mode with its own literals wherever it matters.
        config.trainer.v1.trainer_mode = "sync"
        self._run = _Run.of(config)
        super().__init__(config)
        self._guard = FailureGuard(self._run.config.grpo.failures)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            self.role_worker_mapping[role] = ray.remote(LearnerWorker)

    def on_init_end(self) -> None:
        super().on_init_end()
        if self.global_steps:  # a resumed run looked before its first step
            with open_dict(self.config):
                self.config.trainer.val_before_train = False

    def fit(self, agent_loop_manager: Any) -> None:
        self.replay_buffer.check_workers = agent_loop_manager.check_workers
        super().fit(agent_loop_manager)

    def get_llm_client(self) -> Any:
        """verl's client of the rollout servers; with one server there is nothing to balance."""
        sole = len(self.llm_server_manager.get_replicas()) == 1
        return self.llm_server_manager.get_client(SoleServerClient if sole else None)

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        # Of each update's rows, not of the batch alone: verl deals every mini-batch to all ranks.
        return self._run.config.grpo.updates_per_step * math.lcm(dp_size, self._group_size())

    def _group_size(self) -> int:
        return int(self.config.actor_rollout_ref.rollout.n)

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if not batch.keys:
            raise TooManyFailures("no episode of this step left a sample; see the log of the rollout workers")
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        fields = ["responses", "response_mask", "rollout_log_probs", "extra_fields"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        real = [not tag.get("is_padding", False) for tag in batch.tags]
        records = [record for record, keep in zip(_records(data), real, strict=True) if keep]
        tokens = data["responses"].to_padded_tensor(0).numpy()
        rows = replace(advantage_rows(records), tokens=tokens[real])
        learnt, diagnostics = estimate(rows, self._run.config.grpo.advantage)

        metrics.update(step_metrics(records))
        metrics.update(diagnostics.metrics())
        metrics["samples/padding_rows"] = len(real) - len(records)
        asked = self._run.config.grpo.tasks_per_step * self._run.config.grpo.group_size
        warning = self._guard.watch(records, lost=asked - len({record.episode for record in records}))
        if warning:
            logger.warning(warning)

        mask = data["response_mask"]
        padded = mask.to_padded_tensor(0)
        by_token = np.zeros(padded.shape, dtype=np.float32)
        answer_from = np.array([record.answer_from for record in records], dtype=np.int64)
        by_token[real] = spread(learnt, answer_from, length=padded.shape[1])
        advantages = torch.as_tensor(by_token) * padded
        if padded.any():
            # -log p of what was sampled is an unbiased estimate of the policy's entropy per token.
            log_probs = data["rollout_log_probs"].to_padded_tensor(0.0)
            metrics["policy/entropy/mean"] = float(-(log_probs * padded).sum() / padded.sum())
            metrics["advantage/abs/mean"] = float(advantages.abs().sum() / padded.sum())
        nested = response_to_nested(advantages, mask)
        output = TensorDict({"advantages": nested, "returns": nested.clone()}, batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=output)

    def _validate(self) -> dict[str, float]:
        records: list[TurnRecord] = []
        for rows in self.val_dataloader:
            groups = [uuid.uuid4().hex for _ in rows["index"]]
            batch = tu.get_tensordict({**rows, "uid": np.array(groups, dtype=object)})
            tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)
            tu.assign_non_tensor_data(batch, "validate", True)
            waiting = {"is_prompt": True, "status": "pending", "global_steps": self.global_steps}
            tq.kv_batch_put(keys=groups, partition_id="val", tags=[dict(waiting) for _ in groups])
            self.agent_loop_manager.generate_sequences(batch)
            played, _ = self.replay_buffer.sample(
                global_steps=self.global_steps, partition_id="val", batch_size=len(groups)
            )
            if played.keys:
                fields = tq.kv_batch_get(keys=played.keys, partition_id="val", select_fields=["extra_fields"])
                records += _records(fields)
                tq.kv_clear(keys=played.keys, partition_id="val")
        figures = {f"val/{name}": value for name, value in step_metrics(records).items()}
        if self.global_steps == 0:  # of other steps `_compute_metrics` writes them with the rest
            self._run.write(0, figures)
        return figures

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        actor, grpo = self.config.actor_rollout_ref.actor, self._run.config.grpo
        configured = actor.ppo_mini_batch_size
        with open_dict(self.config):  # verl multiplies it by the group size to get rows
            actor.ppo_mini_batch_size = len(batch) // (grpo.updates_per_step * self._group_size())
        try:
            batch = super()._update_actor(batch, metrics)
        finally:
            with open_dict(self.config):
                actor.ppo_mini_batch_size = configured
        metrics["actor/updates"] = updates_in_a_step(grpo)
        self._check_gap(metrics)
        return batch

    def _check_gap(self, metrics: dict[str, Any]) -> None:
        """Log the step's probability gap under one name; stop where it is asserted and not known to hold."""
        measured = {"gap/prob_max": f"actor/{GAP_MAX}", "gap/prob_mean": f"actor/{GAP_MEAN}"}
        if not verl_config.bypasses_old_log_probs(self._run.config):
            # Later updates of a step have moved on: take the comparison verl made before the first.
            measured = {
                "gap/prob_max": "training/rollout_probs_diff_max",
                "gap/prob_mean": "training/rollout_probs_diff_mean",
            }
        for name, source in measured.items():
            if source in metrics:
                metrics[name] = float(metrics.pop(source))
        limit = self._run.gap_limit
        if limit is None:
            return
        # A step that gets here has a valid sample (`FailureGuard`), and so a token to measure.
        if "gap/prob_max" not in metrics:
            raise GapTooWide(
                f"step {self.global_steps}: nobody measured how far the trainer's probabilities are from the "
                f"rollout's (no {measured['gap/prob_max']} among verl's figures), and in float32 that is "
                "asserted; is this the pinned verl, and does vLLM give the probabilities of what it samples?"
            )
        gap = metrics["gap/prob_max"]
        if not gap <= limit:  # true for NaN too
            raise GapTooWide(
                f"step {self.global_steps}: the trainer's probability of a sampled token differs from the "
                f"rollout's by {gap:.2e} (limit {limit:.0e}); "
                "the rollout engine does not run the trainer's weights"
            )

    def _compute_metrics(
        self, batch: Any, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        metrics.update(self.agent_loop_manager.judge_metrics())
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        self._run.write(global_steps, metrics)


def _records(data: Any) -> list[TurnRecord]:
    """The turns of samples with the field `extra_fields`, in their order."""
    extras = [getattr(extra, "data", extra) for extra in data["extra_fields"]]
    return [TurnRecord.from_dict(extra[EXTRA_FIELD]) for extra in extras]


class SoleServerClient(LLMServerClient):  # type: ignore[misc]  # verl is untyped
    """Asks the load balancer once: two of verl's three remote calls per reply go to it."""

    _server: tuple[str, Any] | None = None

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        if self._server is None:
            self._server = await super()._acquire_server(request_id, **extra)
        return self._server

    def _release_server(self, server_id: str, request_id: str | None = None) -> None:
        return None


class _Run:
    """This run's folder and limits, as the launcher wrote them next to verl's config."""

    def __init__(self, config: Config, folder: Path, gap_limit: float | None) -> None:
        self.config, self.folder, self.gap_limit = config, folder, gap_limit

    @classmethod
    def of(cls, config: DictConfig) -> _Run:
        settings = config.data.thinkedit
        return cls(load_config(settings.config), Path(settings.run_dir), settings.gap_limit)

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        numbers = {name: _number(value) for name, value in metrics.items()}
        append_metrics(self.folder, step, {k: v for k, v in numbers.items() if v is not None})


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | np.number):
        number = value.item() if isinstance(value, np.number) else value
        return number if math.isfinite(number) else None
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value)
    return None

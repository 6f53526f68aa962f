"""The learner's worker: verl's actor and reference, with what our samples need around them.

Subclasses verl's workers and is put into its trainer by `trainer.py`; verl's engines, losses,
dispatch and weight transfer run unchanged.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.utils.metric import AggregationType, Metric
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.utils.padding import no_padding_2_padding

from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config
from thinkedit.learner.log_probs import in_blocks
from thinkedit.learner.positions import mend_position_ids
from thinkedit.learner.rehearsal import Rehearsal
from thinkedit.learner.sockets import own_socket
from thinkedit.learner.tokens import MASKED_LOGIT, forbidden_token_ids

GAP_MAX, GAP_MEAN = "gap/prob_max", "gap/prob_mean"


def freeze_vision(module: Any) -> int:
    """Stop the vision tower from learning; call before the first forward pass.

    Returns:
        How many parameter tensors were frozen.

    Raises:
        ValueError: the model has no part called `visual`.
    """
    visual = getattr(getattr(module, "model", module), "visual", None)
    if visual is None:
        raise ValueError(f"freeze_vision: {type(module).__name__} has no vision tower called 'visual'")
    parameters = list(visual.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    return len(parameters)


def mask_forbidden_tokens(module: Any, token_ids: list[int]) -> None:
    """Leave the forbidden tokens out of the model's distribution, as the rollout engine does."""
    index = torch.tensor(token_ids, dtype=torch.long)

    def mask(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, index.to(logits.device), MASKED_LOGIT)

    module.lm_head.register_forward_hook(mask)


def with_probability_gap(loss: Any, model_output: Any, data: Any, dp_group: Any = None) -> Any:
    """verl's loss, and how far the trainer's token probabilities are from the rollout's.

    Only meaningful while the weights are those that sampled the batch: the first update of a step.
    """
    value, metrics = loss(model_output=model_output, data=data, dp_group=dp_group)
    if "rollout_log_probs" in data:
        trainer = no_padding_2_padding(model_output["log_probs"], data).detach()
        rows = data.select("rollout_log_probs", "response_mask").to_padded_tensor()
        mask = rows["response_mask"].bool()
        gap = (trainer.exp() - rows["rollout_log_probs"].exp()).abs().where(mask, 0.0)
        # Rows of padding alone report too: verl wants the same number of figures from every rank.
        mean = gap.sum() / mask.sum().clamp(min=1)
        metrics[GAP_MAX] = Metric(value=gap.max(), aggregation=AggregationType.MAX)
        metrics[GAP_MEAN] = Metric(value=mean, aggregation=AggregationType.MEAN)
    return value, metrics


class LearnerTrainingWorker(TrainingWorker):  # type: ignore[misc]  # verl is untyped
    """One model and its optimiser; mends each batch's positions before verl touches them."""

    def train_batch(self, data: Any) -> Any:
        mend_position_ids(data)
        with in_blocks():
            return super().train_batch(data=data)

    def train_mini_batch(self, data: Any) -> Any:
        mend_position_ids(data)
        with in_blocks():
            return super().train_mini_batch(data=data)

    def infer_batch(self, data: Any) -> Any:
        mend_position_ids(data)
        with in_blocks():
            return super().infer_batch(data)

    def rehearse(self, config: Config, demonstrations: Path) -> None:
        """Learn from demonstrations too, in every update."""
        batching = {
            "use_remove_padding": self.model_config.get("use_remove_padding", False),
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": self.engine_config.max_token_len_per_gpu,
            "use_fused_kernels": self.engine_config.use_fused_kernels,
            "temperature": 1.0,
            "global_batch_size": config.grpo.rehearsal.batch_size,
            "pad_mode": DatasetPadMode.NO_PADDING,
            "pad_token_id": self.model_config.tokenizer.pad_token_id,
        }
        Rehearsal(config, demonstrations, self.model_config, batching).join(self.engine)


class LearnerWorker(ActorRolloutRefWorker):  # type: ignore[misc]  # verl is untyped
    """Actor, reference and the sender of weights."""

    actor_worker_cls = LearnerTrainingWorker
    ref_worker_cls = LearnerTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def init_model(self) -> None:
        super().init_model()
        for worker in filter(None, (self.actor, self.ref)):
            forbidden = forbidden_token_ids(worker.model_config.tokenizer)
            mask_forbidden_tokens(worker.engine.module, forbidden)
        if self.actor is not None:
            if OmegaConf.select(self.config, "actor.freeze_vision_tower"):
                freeze_vision(self.actor.engine.module)
            self.actor.set_loss_fn(partial(with_probability_gap, self.loss_fn))
            demonstrations = OmegaConf.select(self.config, "thinkedit.demonstrations")
            if demonstrations is not None:
                self.actor.rehearse(load_config(self.config.thinkedit.config), Path(demonstrations))
        if self.rollout is not None:
            self.rollout.zmq_handle = own_socket(self.rollout.zmq_handle)

"""Demonstrations rehearsed while GRPO trains, so that what the reward seldom tests is not unlearnt.

The gradient of -log p of demonstrated critiques is added to each update of the policy, as PPO-ptx adds
that of the pretraining text (InstructGPT: Ouyang et al. 2022, arXiv 2203.02155, Eq. 2).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import sft_loss

from thinkedit.configs.schema import Config, updates_in_a_step
from thinkedit.errors import DataError
from thinkedit.learner.demonstrations import DemonstrationSet
from thinkedit.learner.positions import mend_position_ids

LOSS = "rehearsal_loss"


class Rehearsal:
    """A batch of demonstrations per update, each once before any comes again.

    The order is the run's seed's. A run that is resumed goes on where it was.

    Args:
        data: parquet as for SFT.
        model: verl's model configuration, for its tokenizer and processor.
        batching: what verl wants to know of a batch beside its tensors.

    Raises:
        DataError: there are fewer demonstrations than one update takes.
    """

    def __init__(self, config: Config, data: Path, model: Any, batching: dict[str, Any]) -> None:
        grpo, policy = config.grpo, config.policy
        options = {
            "max_length": policy.max_prompt_tokens + policy.max_reply_tokens,
            "min_pixels": policy.min_pixels,
            "max_pixels": policy.max_pixels,
            "until": grpo.rehearsal.until,
        }
        self._rows = DemonstrationSet(str(data), model.tokenizer, OmegaConf.create(options), model.processor)
        self._size = grpo.rehearsal.batch_size
        if len(self._rows) < self._size:
            raise DataError(f"grpo.rehearsal.batch_size={self._size}: {data} holds only {len(self._rows)}")
        self._order = np.random.default_rng(config.seed).permutation(len(self._rows))
        self._updates = updates_in_a_step(grpo)
        self._loss = partial(_weighted, grpo.rehearsal.weight)
        self._collate = SFTTensorCollator(DatasetPadMode.NO_PADDING)
        self._batching = batching
        self._step, self._update = -1, 0

    def join(self, engine: Any) -> None:
        """From now on each update of the engine's model learns from demonstrations too."""
        alone = engine.forward_backward_batch

        def together(data: Any, loss_function: Any, forward_only: bool = False) -> Any:
            output = alone(data, loss_function, forward_only=forward_only)
            if not forward_only:  # gradients add up until the optimiser's step
                rehearsed = alone(self._batch(engine), self._loss)
                output["metrics"][LOSS] = rehearsed["metrics"][LOSS]
            return output

        engine.forward_backward_batch = together

    def _batch(self, engine: Any) -> Any:
        step = engine.lr_scheduler.last_epoch  # of the run, also after a resume
        self._update = self._update + 1 if step == self._step else 0
        self._step = step
        first = (step * self._updates + self._update) * self._size
        chosen = np.take(self._order, range(first, first + self._size), mode="wrap")
        mine = chosen[engine.get_data_parallel_rank() :: engine.get_data_parallel_size()]
        rows = self._collate(self._rows.__getitems__(mine.tolist()))
        batch = tu.get_tensordict(rows, dict(self._batching))
        mend_position_ids(batch)
        return batch


def _weighted(weight: float, model_output: Any, data: Any, dp_group: Any = None) -> Any:
    loss, _ = sft_loss(None, model_output=model_output, data=data, dp_group=dp_group)
    return weight * loss, {LOSS: Metric(value=loss, aggregation=AggregationType.SUM)}

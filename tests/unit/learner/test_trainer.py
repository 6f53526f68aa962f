"""What the trainer makes of a batch's size, and of how far its probabilities are from the rollout's."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from thinkedit.configs.load import load_config
from thinkedit.learner import worker
from thinkedit.learner.trainer import GapTooWide, ThinkEditTrainer, _Run
from thinkedit.learner.verl_config import Paths, gap_limit, grpo_config
from thinkedit.learner.worker import GAP_MAX, GAP_MEAN, with_probability_gap


def trainer(*overrides: str) -> ThinkEditTrainer:
    config = load_config("demo", overrides)
    made: ThinkEditTrainer = object.__new__(ThinkEditTrainer)  # verl's own constructor starts the workers
    made.config = grpo_config(config, Paths("some/policy", Path("/run"), Path("/scratch")))
    made._run = _Run(config, Path("/run"), gap_limit(config))
    made.global_steps = 7
    return made


@pytest.mark.parametrize(
    ("dp", "group", "updates", "multiple"),
    [
        (1, 4, 1, 4),
        (8, 8, 2, 16),
        (32, 8, 2, 64),  # 32 would leave each update 16 rows for 32 ranks
        (6, 4, 3, 36),
    ],
)
def test_every_update_of_a_step_is_dealt_evenly_to_all_ranks(
    monkeypatch: pytest.MonkeyPatch, dp: int, group: int, updates: int, multiple: int
) -> None:
    learner = trainer(
        f"grpo.group_size={group}", f"grpo.updates_per_step={updates}", f"grpo.tasks_per_step={8 * updates}"
    )
    assert learner._get_required_batch_multiple(dp) == multiple
    actor = learner.config.actor_rollout_ref.actor
    given: list[int] = []

    def update(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        given.append(actor.ppo_mini_batch_size * group)  # as verl counts its rows
        metrics[f"actor/{GAP_MAX}"] = metrics["training/rollout_probs_diff_max"] = 0.0
        return batch

    monkeypatch.setattr(PPOTrainerSync, "_update_actor", update)
    for rows in (1, multiple + 1, 5 * multiple):
        padded = math.ceil(rows / multiple) * multiple
        learner._update_actor(range(padded), {})
        assert given[-1] % dp == 0
        assert padded // given[-1] == updates


def test_epochs_over_a_batch_are_updates_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PPOTrainerSync, "_update_actor", lambda self, batch, metrics: batch)
    metrics = {"training/rollout_probs_diff_max": 0.0}
    trainer("grpo.updates_per_step=2", "grpo.epochs_per_batch=3")._update_actor(range(64), metrics)
    assert metrics["actor/updates"] == 6


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({}, f"step 7: nobody measured .*no actor/{GAP_MAX} "),
        ({f"actor/{GAP_MAX}": math.nan}, "by nan"),
        ({f"actor/{GAP_MAX}": 2e-3}, r"by 2\.00e-03 \(limit 1e-03\)"),
    ],
)
def test_a_gap_that_is_not_known_to_be_narrow_stops_a_float32_run(
    measured: dict[str, float], said: str
) -> None:
    with pytest.raises(GapTooWide, match=said):
        trainer()._check_gap(measured)


def test_a_narrow_gap_is_logged_under_its_name_and_half_precision_has_no_limit() -> None:
    metrics: dict[str, Any] = {f"actor/{GAP_MAX}": 1e-6, f"actor/{GAP_MEAN}": 1e-7}
    trainer()._check_gap(metrics)
    assert metrics == {"gap/prob_max": 1e-6, "gap/prob_mean": 1e-7}
    trainer("policy.dtype=bfloat16")._check_gap({})


@pytest.mark.parametrize(("mask", "widest", "mean"), [([1, 1, 0], 0.25, 0.125), ([0, 0, 0], 0.0, 0.0)])
def test_rows_without_a_token_report_a_gap_as_all_others_do(
    monkeypatch: pytest.MonkeyPatch, mask: list[int], widest: float, mean: float
) -> None:
    monkeypatch.setattr(worker, "no_padding_2_padding", lambda log_probs, data: log_probs)
    data = TensorDict(
        {
            "rollout_log_probs": torch.tensor([[0.5, 0.75, 0.1]]).log(),
            "response_mask": torch.tensor([mask]),
        },
        batch_size=1,
    )
    output = {"log_probs": torch.tensor([[0.5, 0.5, math.nan]]).log()}
    _, metrics = with_probability_gap(lambda **_: (0.0, {}), output, data)
    found = [metrics[name].aggregate() for name in (GAP_MAX, GAP_MEAN)]
    assert found == pytest.approx([widest, mean])

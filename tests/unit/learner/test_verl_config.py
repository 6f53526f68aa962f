"""verl's configuration is made in one place, against verl's own defaults and dataclasses."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError

from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config
from thinkedit.errors import ConfigError
from thinkedit.learner import verl_config
from thinkedit.learner.grpo import plan
from thinkedit.learner.verl_config import Paths


def paths(folder: Path) -> Paths:
    return Paths(policy="some/policy", run_dir=folder, scratch=folder)


def grpo(config: Config, folder: Path = Path("/run")) -> DictConfig:
    return verl_config.grpo_config(config, paths(folder))


@pytest.fixture
def demo() -> Config:
    return load_config("demo")


@pytest.fixture
def paper() -> Config:
    return load_config("paper/flux_kontext", require_plugins=False)


def test_the_papers_recipe_arrives_at_verl_unchanged(paper: Config) -> None:
    composed = grpo(paper)
    actor, rollout = composed.actor_rollout_ref.actor, composed.actor_rollout_ref.rollout
    assert rollout.n == 8
    assert composed.data.train_batch_size * rollout.n == 128
    assert (actor.optim.lr, actor.optim.lr_warmup_steps) == (2e-6, 0)
    assert (actor.use_kl_loss, actor.kl_loss_coef) == (True, 1e-3)
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (0.2, 0.3)


def test_the_papers_plan_is_checked_by_verl_without_its_model(paper: Config) -> None:
    _, figures = plan(paper)
    assert figures["policy"] == "Qwen/Qwen3-VL-8B-Instruct"
    assert figures["episodes_per_step"] == 128
    assert figures["episodes_per_update"] == 64
    assert figures["max_pixels"] == 1024 * 1024


def test_the_learning_rate_rises_and_falls_as_asked_for() -> None:
    config = load_config("demo", ["grpo.warmup_steps=7", "grpo.lr_schedule=cosine"])
    optim = grpo(config).actor_rollout_ref.actor.optim
    assert (optim.lr_warmup_steps, optim.lr_scheduler_type) == (7, "cosine")


def test_verl_accepts_the_demo(demo: Config) -> None:
    verl_config.check(grpo(demo))


def test_a_value_that_verl_refuses_is_a_config_error(demo: Config) -> None:
    composed = grpo(demo)
    composed.actor_rollout_ref.actor.loss_agg_mode = "no-such-mode"
    with pytest.raises(ConfigError, match="verl refuses"):
        verl_config.check(composed)


def test_only_a_gpu_run_leaves_the_cpu_backend_out(demo: Config, paper: Config) -> None:
    assert grpo(demo).actor_rollout_ref.model.external_lib == verl_config.CPU_ENGINE
    assert grpo(paper).actor_rollout_ref.model.external_lib is None


def test_rollouts_start_from_weights_that_only_the_trainer_can_give(demo: Config) -> None:
    assert grpo(demo).actor_rollout_ref.rollout.load_format == "dummy"


def test_no_kl_means_no_reference_model(demo: Config) -> None:
    demo.grpo.kl_coef = 0.0
    assert grpo(demo).actor_rollout_ref.actor.use_kl_loss is False


@pytest.mark.parametrize(
    ("changes", "bypasses"),
    [({}, True), ({"updates_per_step": 2}, False), ({"epochs_per_batch": 2}, False)],
)
def test_old_log_probs_are_recomputed_unless_they_are_the_same_numbers(
    demo: Config, changes: dict[str, Any], bypasses: bool
) -> None:
    for name, value in changes.items():
        setattr(demo.grpo, name, value)
    composed = grpo(demo)
    assert composed.algorithm.rollout_correction.bypass_mode is bypasses


def test_half_precision_logs_the_gap_without_a_limit(demo: Config, paper: Config) -> None:
    assert verl_config.gap_limit(demo) == 1e-3
    assert verl_config.gap_limit(paper) is None


def test_a_batch_that_does_not_split_into_updates_is_refused(demo: Config) -> None:
    demo.grpo.updates_per_step = 3
    with pytest.raises(ConfigError, match="updates_per_step"):
        grpo(demo)


def test_gpus_that_do_not_fill_engines_are_refused(demo: Config) -> None:
    demo.rollout.tensor_parallel = 2
    with pytest.raises(ConfigError, match="tensor_parallel"):
        grpo(demo)


@pytest.mark.parametrize(("every", "freq"), [(20, 20), (0, 40)])
def test_the_last_step_is_saved_whatever_else_is(demo: Config, every: int, freq: int) -> None:
    demo.grpo.save_every = every
    assert grpo(demo).trainer.save_freq == freq  # verl saves the last one too, but for 0


@pytest.mark.parametrize(("dtype", "name"), [("float32", "fp32"), ("bfloat16", "bf16"), ("float16", "fp16")])
def test_a_gpu_run_computes_in_the_policys_own_dtype(
    paper: Config, tmp_path: Path, dtype: str, name: str
) -> None:
    paper.policy.dtype = dtype
    expected = {"param_dtype": name, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    composed = grpo(paper)
    verl_config.check(composed)
    for part in (composed.actor_rollout_ref.actor, composed.actor_rollout_ref.ref):
        assert part.fsdp_config.mixed_precision == expected
    sft = verl_config.sft_config(paper, tmp_path / "data.parquet", paths(tmp_path))
    assert sft.engine.mixed_precision == expected


def test_nucleus_sampling_is_for_use_and_not_for_training() -> None:
    config = load_config("demo", ["rollout.top_p=0.9"])
    with pytest.raises(ConfigError, match=r"rollout\.top_p=0\.9: GRPO needs 1"):
        plan(config)


def test_only_a_run_that_needs_another_ray_cluster_joins_one(demo: Config, paper: Config) -> None:
    def address(config: Config) -> Any:
        return grpo(config).ray_kwargs.ray_init.address

    assert (address(demo), address(paper)) == ("local", "local")
    paper.editor.name = "served"
    assert address(paper) == "auto"
    paper.editor.name, paper.cluster.nodes = "http", 4
    assert address(paper) == "auto"
    demo.editor.name = "served"
    with pytest.raises(ConfigError, match="in which no editor is served"):
        grpo(demo)


def test_a_key_that_verl_does_not_know_is_refused() -> None:
    composed = verl_config._compose("ppo_trainer", [])
    with pytest.raises(ConfigAttributeError):
        verl_config._apply(composed, {"trainer.no_such_key": 1})


def test_sft_trains_on_the_rows_that_rollouts_would_see(demo: Config, tmp_path: Path) -> None:
    composed = verl_config.sft_config(demo, tmp_path / "data.parquet", paths(tmp_path))
    assert composed.data.custom_cls.name == "DemonstrationSet"
    assert composed.engine.strategy == "fsdp2"
    assert composed.optim.lr == demo.sft.lr
    assert list(composed.optim.betas) == [0.9, demo.sft.beta2]

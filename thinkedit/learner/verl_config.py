"""The one place where a thinkedit `Config` becomes verl's configuration.

verl's own Hydra files are composed and keys set on top, so that every default is verl's and a key
that verl does not know is refused; `check` then builds verl's own dataclasses from the result.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thinkedit.configs.schema import Config, sft_micro_batch, sft_ranks
from thinkedit.errors import ConfigError

TRAINER = "thinkedit_sync"
AGENT = "thinkedit"
AGENT_MANAGER = "thinkedit.actors.manager.ThinkEditManager"
AGENT_LOOP = "thinkedit.actors.agent_loop.EditLoop"
CPU_ENGINE = "thinkedit.learner.cpu.engine"
ROLLOUT_EXTENSION = "thinkedit.learner.rollout.RolloutExtension"
CPU_ROLLOUT_EXTENSION = "thinkedit.learner.cpu.rollout.CPURolloutExtension"

SERVED = "served"  # the editor in the Ray cluster that the learner joins
PACKING = "flash_attention_2"  # the attention that takes rows end to end, without padding

# Keys that verl reads but whose defaults it does not write down.
_UNLISTED = (
    "data.streams",
    "data.thinkedit",
    "data.freeze_vision",
    "data.min_pixels",
    "data.max_pixels",
    "actor_rollout_ref.model.override_config.attn_implementation",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.rollout.limit_images",
    "actor_rollout_ref.thinkedit",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend",
    "ray_kwargs.ray_init.num_gpus",
    "ray_kwargs.ray_init.include_dashboard",
    "ray_kwargs.ray_init.object_store_memory",
    "ray_kwargs.ray_init._temp_dir",
    "ray_kwargs.ray_init.address",
    "model.override_config.attn_implementation",
    "engine.mixed_precision",
)
_FP32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}  # ours, and verl's names
SFT_SAVE_EVERY = 500  # steps; the last one is saved in any case
_CPU_WEIGHT_BUCKET_MB = 64  # must hold the largest tensor; CPU policies are small


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a run reads and writes."""

    policy: str
    run_dir: Path
    scratch: Path
    demonstrations: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    @property
    def config(self) -> Path:
        return self.run_dir / "config.yaml"

    @property
    def agent(self) -> Path:
        return self.run_dir / "agent.yaml"


def grpo_config(
    config: Config, paths: Paths, *, task_count: int | None = None, held_out_count: int | None = None
) -> DictConfig:
    """verl's V1 PPO configuration for a GRPO run.

    Args:
        task_count, held_out_count: tasks in the splits "train" and "val"; None where they are endless.

    Raises:
        ConfigError: a combination that verl cannot run; names the fields.
    """
    refuse_impossible(config)
    composed = _compose("ppo_trainer", ["actor_rollout_ref.rollout.name=vllm"])
    settings = _grpo_settings(config, paths)
    settings["data.streams"] = {
        "train": {
            "split": "train",
            "length": config.grpo.steps * config.grpo.tasks_per_step,
            "task_count": task_count,
            "seed": config.seed,
        },
        "val": {
            "split": "val",
            "length": _held_out(config, held_out_count),
            "task_count": None,
            "seed": 0,  # the first ones, in their order, whatever the run's seed
        },
    }
    settings |= _cpu_settings(config, paths) if config.cluster.device == "cpu" else _cuda_settings(config)
    return _apply(composed, settings)


def sft_config(config: Config, data: Path, paths: Paths) -> DictConfig:
    """verl's SFT configuration. `data`: parquet with columns `messages` and `images`."""
    sft, policy = config.sft, config.policy
    on_cpu = config.cluster.device == "cpu"
    settings: dict[str, Any] = {
        "data.train_files": str(data),
        "data.train_batch_size": sft.batch_size,
        "data.micro_batch_size_per_gpu": sft_micro_batch(config),
        "data.use_dynamic_bsz": False,
        "data.max_length": policy.max_prompt_tokens + policy.max_reply_tokens,
        "data.num_workers": 0 if on_cpu else 8,
        "data.freeze_vision": sft.freeze_vision,
        "data.min_pixels": policy.min_pixels,
        "data.max_pixels": policy.max_pixels,
        "data.custom_cls.path": "pkg://thinkedit.learner.demonstrations",
        "data.custom_cls.name": "DemonstrationSet",
        "model.path": paths.policy,
        "model.external_lib": CPU_ENGINE if on_cpu else None,
        "model.override_config.attn_implementation": policy.attention,
        "model.use_remove_padding": policy.attention == PACKING,
        "model.enable_gradient_checkpointing": not on_cpu,
        "engine.strategy": "fsdp2",
        "engine.use_torch_compile": not on_cpu,
        "engine.model_dtype": "fp32",
        "engine.mixed_precision": _mixed_precision(policy.dtype),
        "engine.seed": config.seed,
        "optim.lr": sft.lr,
        "optim.betas": [0.9, sft.beta2],
        "optim.weight_decay": sft.weight_decay,
        "optim.lr_warmup_steps_ratio": sft.warmup_ratio,
        "optim.lr_scheduler_type": "cosine",
        "checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        "trainer.device": config.cluster.device,
        "trainer.nnodes": config.cluster.nodes,
        "trainer.n_gpus_per_node": sft_ranks(config.cluster),
        "trainer.total_epochs": sft.epochs,
        "trainer.seed": config.seed,
        "trainer.save_freq": SFT_SAVE_EVERY,
        "trainer.max_ckpt_to_keep": 1,
        "trainer.default_local_dir": str(paths.checkpoints),
        "trainer.project_name": "thinkedit",
        "trainer.experiment_name": config.name,
        "trainer.logger": list(config.loggers),
        "trainer.resume_mode": "auto",
    }
    return _apply(_compose("sft_trainer_engine", []), settings)


def check(composed: DictConfig) -> None:
    """Build verl's dataclasses from a GRPO configuration, without loading a model.

    Raises:
        ConfigError: verl refuses a value.
    """
    from verl.utils.config import omega_conf_to_dataclass

    rollout, actor = composed.actor_rollout_ref.rollout, composed.actor_rollout_ref.actor
    try:
        with redirect_stdout(io.StringIO()):  # verl prints as it checks
            actor_config = omega_conf_to_dataclass(actor)
            gpus = composed.trainer.nnodes * composed.trainer.n_gpus_per_node
            actor_config.validate(gpus, composed.data.train_batch_size, composed.actor_rollout_ref.model)
            for section in (rollout, composed.algorithm, rollout.checkpoint_engine):
                omega_conf_to_dataclass(section)
    except (ValueError, AssertionError, TypeError, KeyError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"verl refuses the configuration: {error}") from error


def bypasses_old_log_probs(config: Config) -> bool:
    """Whether the rollout's log-probabilities serve as the old policy's.

    In float32 with one update a step both are the same numbers (the gap is measured in the update),
    so a whole forward pass is saved. Otherwise verl recomputes them.
    """
    single = config.grpo.updates_per_step == 1 and config.grpo.epochs_per_batch == 1
    return single and config.policy.dtype == "float32"


def gap_limit(config: Config) -> float | None:
    """Largest allowed difference of a sampled token's probability between rollout and trainer.

    In float32 both run the same numbers; half precision differs by design, and is only logged.
    """
    return 1e-3 if config.policy.dtype == "float32" else None


def _held_out(config: Config, available: int | None) -> int:
    """Held-out tasks that are looked at; verl wants one even where it never looks."""
    if not config.grpo.validate_every:
        return 1
    if available == 0:
        raise ConfigError(
            f"grpo.validate_every={config.grpo.validate_every}: the task source has no task in split 'val'"
        )
    return config.grpo.validate_tasks if available is None else min(available, config.grpo.validate_tasks)


def _grpo_settings(config: Config, paths: Paths) -> dict[str, Any]:
    grpo, rollout, policy, cluster = config.grpo, config.rollout, config.policy, config.cluster
    model, actor, ref, roll = (f"actor_rollout_ref.{part}" for part in ("model", "actor", "ref", "rollout"))
    return {
        "data.custom_cls.path": "pkg://thinkedit.learner.prompts",
        "data.custom_cls.name": "TaskStream",
        "data.thinkedit": {
            "config": str(paths.config),
            "run_dir": str(paths.run_dir),
            "gap_limit": gap_limit(config),
            "concurrency": rollout.concurrency,
        },
        "actor_rollout_ref.thinkedit": {
            "config": str(paths.config),
            "demonstrations": paths.demonstrations and str(paths.demonstrations),
        },
        "data.train_files": "train",
        "data.val_files": "val",
        "data.shuffle": False,  # the stream is shuffled already
        "data.train_batch_size": grpo.tasks_per_step,
        "data.max_prompt_length": policy.max_prompt_tokens,
        "data.max_response_length": policy.max_reply_tokens,
        "data.dataloader_num_workers": 0,
        # The advantage is ours (trainer.py); any critic-free name does.
        "algorithm.adv_estimator": "grpo",
        "algorithm.use_kl_in_reward": False,
        "algorithm.gamma": grpo.advantage.gamma,
        "algorithm.rollout_correction.bypass_mode": bypasses_old_log_probs(config),
        f"{model}.path": paths.policy,
        f"{model}.override_config.attn_implementation": policy.attention,
        f"{model}.use_remove_padding": policy.attention == PACKING,
        f"{actor}.strategy": "fsdp2",
        f"{actor}.fsdp_config.strategy": "fsdp2",
        f"{actor}.fsdp_config.seed": config.seed,
        f"{actor}.optim.lr": grpo.lr,
        f"{actor}.optim.lr_warmup_steps": grpo.warmup_steps,
        f"{actor}.optim.weight_decay": grpo.weight_decay,
        f"{actor}.optim.clip_grad": grpo.grad_clip,
        f"{actor}.optim.lr_scheduler_type": grpo.lr_schedule,
        f"{actor}.grad_clip": grpo.grad_clip,
        f"{actor}.ppo_mini_batch_size": grpo.tasks_per_step // grpo.updates_per_step,
        f"{actor}.ppo_epochs": grpo.epochs_per_batch,
        f"{actor}.use_dynamic_bsz": True,
        f"{actor}.ppo_max_token_len_per_gpu": grpo.max_tokens_per_gpu,
        f"{actor}.clip_ratio": grpo.clip_low,
        f"{actor}.clip_ratio_low": grpo.clip_low,
        f"{actor}.clip_ratio_high": grpo.clip_high,
        f"{actor}.use_kl_loss": grpo.kl_coef > 0,
        f"{actor}.kl_loss_coef": grpo.kl_coef,
        f"{actor}.kl_loss_type": grpo.kl_type,
        f"{actor}.loss_agg_mode": "token-mean",  # the one mode that padding rows do not shift
        f"{actor}.freeze_vision_tower": grpo.freeze_vision,
        f"{actor}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        f"{actor}.checkpoint.load_contents": ["model", "optimizer", "extra"],
        f"{ref}.log_prob_max_token_len_per_gpu": grpo.max_tokens_per_gpu,
        f"{roll}.n": grpo.group_size,
        f"{roll}.temperature": rollout.temperature,
        f"{roll}.top_p": rollout.top_p,
        f"{roll}.val_kwargs.temperature": config.eval.temperature,
        f"{roll}.val_kwargs.top_p": rollout.top_p,
        f"{roll}.val_kwargs.do_sample": config.eval.temperature > 0,
        f"{roll}.dtype": policy.dtype,
        f"{roll}.tensor_model_parallel_size": rollout.tensor_parallel,
        f"{roll}.gpu_memory_utilization": rollout.gpu_memory_utilization,
        f"{roll}.max_num_seqs": rollout.max_num_seqs,
        f"{roll}.max_model_len": policy.max_prompt_tokens + policy.max_reply_tokens,
        f"{roll}.max_num_batched_tokens": max(8192, policy.max_prompt_tokens + policy.max_reply_tokens),
        f"{roll}.calculate_log_probs": True,
        f"{roll}.load_format": "dummy",  # the first weights, like all others, come from the trainer
        f"{roll}.limit_images": 2,
        f"{roll}.seed": config.seed,
        f"{roll}.log_prob_max_token_len_per_gpu": grpo.max_tokens_per_gpu,
        f"{roll}.agent.num_workers": rollout.workers,
        f"{roll}.agent.default_agent_loop": AGENT,
        f"{roll}.agent.agent_loop_config_path": str(paths.agent),
        f"{roll}.agent.agent_loop_manager_class": AGENT_MANAGER,
        f"{roll}.engine_kwargs.vllm.worker_extension_cls": ROLLOUT_EXTENSION,
        "reward.num_workers": 0,  # rewards come with the episode
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": cluster.nodes,
        "trainer.v1.trainer_mode": TRAINER,
        "trainer.v1.sampler.custom_sampler.path": "pkg://thinkedit.learner.replay",
        "trainer.v1.sampler.custom_sampler.name": "EagerReplayBuffer",
        "trainer.device": cluster.device,
        "trainer.nnodes": cluster.nodes,
        "trainer.n_gpus_per_node": cluster.gpus_per_node,
        "trainer.total_training_steps": grpo.steps,
        "trainer.total_epochs": 1,
        "trainer.val_before_train": bool(grpo.validate_every),
        "trainer.test_freq": grpo.validate_every or -1,
        # Never 0: verl would not save the last step either, and the run would be lost.
        "trainer.save_freq": grpo.save_every or grpo.steps,
        "trainer.max_actor_ckpt_to_keep": 2,
        "trainer.resume_mode": "auto",
        "trainer.default_local_dir": str(paths.checkpoints),
        "trainer.project_name": "thinkedit",
        "trainer.experiment_name": config.name,
        "trainer.logger": list(config.loggers),
    }


def _cpu_settings(config: Config, paths: Paths) -> dict[str, Any]:
    learners = config.cluster.gpus_per_node * config.cluster.nodes
    model, actor, ref, roll = (f"actor_rollout_ref.{part}" for part in ("model", "actor", "ref", "rollout"))
    return {
        f"{model}.external_lib": CPU_ENGINE,
        f"{model}.enable_gradient_checkpointing": False,
        f"{actor}.use_torch_compile": False,
        f"{actor}.fsdp_config.use_torch_compile": False,
        f"{actor}.fsdp_config.model_dtype": "fp32",
        f"{actor}.fsdp_config.mixed_precision": _FP32,
        f"{ref}.fsdp_config.use_torch_compile": False,
        f"{ref}.fsdp_config.model_dtype": "fp32",
        f"{ref}.fsdp_config.mixed_precision": _FP32,
        f"{roll}.enforce_eager": True,
        f"{roll}.free_cache_engine": False,  # vLLM has no sleep mode on CPUs
        f"{roll}.enable_sleep_mode": False,
        f"{roll}.enable_prefix_caching": False,
        f"{roll}.checkpoint_engine.update_weights_bucket_megabytes": _CPU_WEIGHT_BUCKET_MB,
        f"{roll}.engine_kwargs.vllm.worker_extension_cls": CPU_ROLLOUT_EXTENSION,
        f"{roll}.engine_kwargs.vllm.distributed_executor_backend": "uni",
        "transfer_queue.backend.SimpleStorage.total_storage_size": 20000,
        # Slots, not silicon: verl's placement bundles ask for three CPUs and one "GPU" each.
        "ray_kwargs.ray_init.address": "local",  # slots can't be brought to a cluster that runs already
        "ray_kwargs.ray_init.num_gpus": learners,
        "ray_kwargs.ray_init.num_cpus": 16 + 4 * learners + config.rollout.workers,
        "ray_kwargs.ray_init.include_dashboard": False,
        "ray_kwargs.ray_init.object_store_memory": 400_000_000,
        "ray_kwargs.ray_init._temp_dir": str(paths.scratch / "ray"),
    }


def _cuda_settings(config: Config) -> dict[str, Any]:
    actor, ref = "actor_rollout_ref.actor", "actor_rollout_ref.ref"
    # Without an address Ray would join whatever cluster it finds, somebody else's too.
    joins = config.cluster.nodes > 1 or config.editor.name == SERVED
    return {
        f"{actor}.fsdp_config.model_dtype": "fp32",
        # verl takes bfloat16 where this is left out, whatever the models' own types.
        f"{actor}.fsdp_config.mixed_precision": _mixed_precision(config.policy.dtype),
        f"{ref}.fsdp_config.model_dtype": config.policy.dtype,
        f"{ref}.fsdp_config.mixed_precision": _mixed_precision(config.policy.dtype),
        f"{ref}.fsdp_config.param_offload": True,
        "ray_kwargs.ray_init.address": "auto" if joins else "local",
    }


def _mixed_precision(dtype: str) -> dict[str, str]:
    """verl's setting for a model that computes in `dtype` and adds gradients up in float32."""
    return {**_FP32, "param_dtype": _DTYPES[dtype]}


def refuse_impossible(config: Config) -> None:
    """Refuse what evaluation could do with and GRPO can't; needs neither verl nor a model.

    Raises:
        ConfigError: names the fields.
    """
    grpo, cluster = config.grpo, config.cluster
    gpus = cluster.nodes * cluster.gpus_per_node
    if grpo.tasks_per_step % grpo.updates_per_step:
        raise ConfigError(
            f"grpo.tasks_per_step ({grpo.tasks_per_step}) must be a multiple of "
            f"grpo.updates_per_step ({grpo.updates_per_step})"
        )
    if gpus % config.rollout.tensor_parallel:
        raise ConfigError(
            f"cluster.nodes * cluster.gpus_per_node ({gpus}) must be a multiple of "
            f"rollout.tensor_parallel ({config.rollout.tensor_parallel})"
        )
    if config.rollout.top_p != 1:
        raise ConfigError(
            f"rollout.top_p={config.rollout.top_p:g}: GRPO needs 1. vLLM gives the probabilities of the "
            "truncated distribution and the learner those of the whole one, so the ratio of the two means "
            "nothing; set it for evaluation and editing only"
        )
    if cluster.device == "cpu" and config.editor.name == SERVED:
        raise ConfigError(
            f"editor.name={SERVED}: on cluster.device=cpu the learner starts a Ray cluster of its own, in "
            "which no editor is served; reach it over HTTP with editor=http"
        )
    if grpo.mode != "sync":
        raise ConfigError(f"grpo.mode {grpo.mode!r}: only 'sync' is there yet")


def _compose(name: str, overrides: list[str]) -> DictConfig:
    spec = find_spec("verl")  # does not import it
    if spec is None or spec.origin is None:
        raise ConfigError("verl is not installed; install requirements/cpu.txt or requirements/gpu.txt")
    folder = Path(spec.origin).parent / "trainer" / "config"
    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base=None):
            return compose(name, overrides=overrides)
    finally:
        GlobalHydra.instance().hydra = state


def _apply(composed: DictConfig, settings: Mapping[str, Any]) -> DictConfig:
    OmegaConf.set_struct(composed, True)
    for key, value in settings.items():
        OmegaConf.update(composed, key, value, merge=False, force_add=key in _UNLISTED)
    return composed

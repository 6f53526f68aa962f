"""GRPO: starts verl's V1 trainer in a process of its own and follows it.

`run_grpo` is the caller's side: it writes the run's files, starts `python -m thinkedit.learner.grpo`
in the right environment, and reports each step from the metrics that the trainer writes. The child
runs verl's task runner itself instead of as one more Ray actor, which saves a process and its imports.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from thinkedit import plugins
from thinkedit.cluster import start_ray
from thinkedit.configs.load import save_config
from thinkedit.configs.schema import Config, ServiceConfig
from thinkedit.errors import ConfigError
from thinkedit.learner import verl_config
from thinkedit.learner.launch import (
    MARKER,
    OnStep,
    TrainingResult,
    end_with_parent,
    export_policy,
    follow,
    latest_checkpoint,
    local_path,
    process_environment,
    scratch_folder,
    step_of,
)
from thinkedit.learner.verl_config import Paths

VERL = "verl.yaml"  # verl's configuration of the last start, in the run's folder


def run_grpo(
    config: Config,
    policy_path: str | Path,
    run_dir: str | Path,
    *,
    demonstrations: str | Path | None = None,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train `policy_path` (also the KL reference) and export the result to `run_dir/policy`.

    A folder that holds checkpoints is resumed: model, optimiser, random state and place in the data.

    Args:
        demonstrations: a parquet as for SFT, which `grpo.rehearsal` learns from.
        on_step: called with each step's metrics, in order, soon after the step.

    Raises:
        ConfigError: `grpo.rehearsal.batch_size` asks for demonstrations, and there are none; or the
            checkpoints began from another policy.
        TrainingFailed: the process failed; the whole log is in `run_dir/log.txt`.
    """
    run_dir = Path(run_dir).resolve()
    size = config.grpo.rehearsal.batch_size
    if size and demonstrations is None:
        raise ConfigError(
            f"grpo.rehearsal.batch_size={size}: there are no demonstrations; run SFT first, or set it to 0"
        )
    rehearsed = Path(demonstrations).resolve() if size and demonstrations is not None else None
    began = time.monotonic()
    with scratch_folder() as scratch:
        paths = Paths(local_path(policy_path), run_dir, scratch, demonstrations=rehearsed)
        refuse_other_start(paths)
        composed = verl_config.grpo_config(config, paths, **_task_counts(config))
        prepare(config, composed, paths)
        environment = process_environment(config, paths, threads=config.cluster.cpu_threads)
        follow(
            [sys.executable, "-m", "thinkedit.learner.grpo", str(run_dir / VERL)],
            environment=environment,
            run_dir=run_dir,
            on_step=on_step,
        )
    checkpoint = latest_checkpoint(paths.checkpoints)
    policy = export_policy(checkpoint, paths.policy, run_dir / "policy", config.grpo.interpolation)
    return TrainingResult(policy, steps=step_of(checkpoint), seconds=time.monotonic() - began)


def plan(config: Config) -> tuple[DictConfig, dict[str, Any]]:
    """verl's configuration and the plan of a run, checked, with nothing started or downloaded.

    Raises:
        ConfigError: verl refuses the configuration.
    """
    run_dir = Path(config.run_dir)
    composed = verl_config.grpo_config(
        config, Paths(config.policy.path, run_dir, Path(tempfile.gettempdir()))
    )
    verl_config.check(composed)
    grpo, cluster, rollout = config.grpo, config.cluster, config.rollout
    gpus = cluster.nodes * cluster.gpus_per_node
    episodes = grpo.tasks_per_step * grpo.group_size
    return composed, {
        "policy": config.policy.path,
        "device": cluster.device,
        "pool": f"{cluster.nodes} node(s) x {cluster.gpus_per_node} {_slots(cluster.device)}",
        "trainer": f"FSDP2 over {gpus} rank(s), {config.policy.dtype}",
        "rollout": f"{gpus // rollout.tensor_parallel} vLLM engine(s)",
        "rollout_tensor_parallel": rollout.tensor_parallel,
        "rollout_workers": rollout.workers,
        "episodes_per_step": episodes,
        "samples_per_step": f"{episodes} to {episodes * config.episode.max_turns}",
        "episodes_per_update": episodes // grpo.updates_per_step,
        "updates_per_step": grpo.updates_per_step,
        "group_size": grpo.group_size,
        "steps": grpo.steps,
        "interpolation": f"{grpo.interpolation:g} of the way from its start is exported",
        "lr": grpo.lr,
        "rehearsal": f"{grpo.rehearsal.batch_size} demonstrations an update"
        if grpo.rehearsal.batch_size
        else "off",
        "kl": f"{grpo.kl_coef:g} ({grpo.kl_type})" if grpo.kl_coef else "off",
        "max_pixels": config.policy.max_pixels,
        "tokens": f"{config.policy.max_prompt_tokens} prompt + {config.policy.max_reply_tokens} reply",
        "editor": _named(config.editor),
        "judge": _named(config.judge),
        "reward": config.reward.profile + (" with own weights" if config.reward.weights else ""),
        "advantage": f"{config.grpo.advantage.estimator}, scale {config.grpo.advantage.scale}",
        "checkpoints": f"{_saved(grpo.save_every)} in {run_dir / 'grpo' / 'checkpoints'}",
    }


def refuse_other_start(paths: Paths) -> None:
    """Refuse to go on from checkpoints with another policy as their start, and so as KL reference.

    The start that `verl.yaml` has beside them is the same where both moved with the run.

    Raises:
        ConfigError: they began from another policy.
    """
    written = paths.run_dir / VERL
    if not ((paths.checkpoints / MARKER).exists() and written.exists()):
        return
    before = OmegaConf.load(written)
    began, folder = before.actor_rollout_ref.model.path, before.data.thinkedit.run_dir
    moved_along = os.path.relpath(began, folder) == os.path.relpath(paths.policy, paths.run_dir)
    if began != paths.policy and not moved_along:
        raise ConfigError(
            f"the checkpoints in {paths.checkpoints} began from {began}, not from {paths.policy}: start from "
            "the former to go on, or choose another name=... for a run from the latter"
        )


def prepare(config: Config, composed: DictConfig, paths: Paths) -> None:
    """Write what the child processes read: both configurations and the agent loop's entry."""
    paths.run_dir.mkdir(parents=True, exist_ok=True)
    # Absolute, for Ray's processes have working directories of their own.
    save_config(replace(config, run_dir=str(Path(config.run_dir).resolve())), paths.config)
    OmegaConf.save(composed, paths.run_dir / VERL)
    # verl builds one loop object per episode from this entry (agent_loop_config_path).
    entry = {
        "name": verl_config.AGENT,
        "_target_": verl_config.AGENT_LOOP,
        "config_path": str(paths.config),
        "trajectories": str(paths.run_dir / "trajectories"),
    }
    OmegaConf.save(OmegaConf.create([entry]), paths.agent)


def _named(service: ServiceConfig) -> str:
    model = service.options.get("model")
    return service.name if model is None else f"{service.name} ({model})"


def _task_counts(config: Config) -> dict[str, int | None]:
    tasks = plugins.build("tasks", config.tasks.name, config.tasks.options)
    return {"task_count": tasks.size("train"), "held_out_count": tasks.size("val")}


def _saved(every: int) -> str:
    return f"every {every} steps" if every else "at the end"


def _slots(device: str) -> str:
    return "GPU(s)" if device == "cuda" else "CPU slot(s)"


def main(path: str) -> None:
    """The child's side: run verl's task runner with our trainer registered."""
    end_with_parent()
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)

    import ray
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
    from verl.trainer.main_ppo import TaskRunnerV1

    import thinkedit.learner.trainer  # noqa: F401  # registers verl_config.TRAINER

    verl_config.check(config)
    os.environ["TRANSFER_QUEUE_ENABLE"] = "1"
    settings = config.ray_kwargs.ray_init
    settings.runtime_env = OmegaConf.merge(get_ppo_ray_runtime_env(config), settings.runtime_env)
    settings.runtime_env.setdefault("env_vars", {})["TRANSFER_QUEUE_ENABLE"] = "1"
    start_ray(**cast(dict[str, Any], OmegaConf.to_container(settings)))
    try:
        TaskRunnerV1.__ray_actor_class__().run(config)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])

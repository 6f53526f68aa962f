"""GRPO: starts verl's V1 trainer in a process of its own and follows it.

`run_grpo` is the caller's side: it writes the run's files, starts `python -m thinkedit.learner.grpo`
in the right environment, and reports each step from the metrics that the trainer writes. The child
runs verl's task runner itself instead of as one more Ray actor, which saves a process and its imports.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thinkedit import plugins
from thinkedit.configs.load import save_config
from thinkedit.configs.schema import Config
from thinkedit.errors import ThinkEditError
from thinkedit.learner import verl_config
from thinkedit.learner.cpu.environment import cpu_environment
from thinkedit.learner.sockets import RUN_KEY
from thinkedit.learner.verl_config import Paths

METRICS = "metrics.jsonl"
LOG = "log.txt"
POLL_S = 0.5
TAIL_LINES = 30

OnStep = Callable[[Mapping[str, float]], None]


class TrainingFailed(ThinkEditError):
    """The training process ended with an error; the message ends with its last lines."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished run leaves.

    policy: a Hugging Face folder that vLLM and verl load.
    steps: optimiser steps done in all, earlier starts of a resumed run included.
    """

    policy: Path
    steps: int
    seconds: float


def run_grpo(
    config: Config, policy_path: str | Path, run_dir: str | Path, *, on_step: OnStep | None = None
) -> TrainingResult:
    """Train `policy_path` (also the KL reference) and export the result to `run_dir/policy`.

    A folder that holds checkpoints is resumed: model, optimiser, random state and place in the data.

    Args:
        on_step: called with each step's metrics, in order, soon after the step.

    Raises:
        TrainingFailed: the process failed; the whole log is in `run_dir/log.txt`.
    """
    run_dir = Path(run_dir).resolve()
    began = time.monotonic()
    with scratch_folder() as scratch:
        paths = Paths(policy=_local(policy_path), run_dir=run_dir, scratch=scratch)
        composed = verl_config.grpo_config(config, paths, task_count=_task_count(config))
        prepare(config, composed, paths)
        environment = process_environment(config, paths)
        follow(
            [sys.executable, "-m", "thinkedit.learner.grpo", str(run_dir / "verl.yaml")],
            environment=environment,
            run_dir=run_dir,
            on_step=on_step,
        )
    checkpoint = latest_checkpoint(paths.checkpoints)
    policy = export_policy(checkpoint, paths.policy, run_dir / "policy")
    return TrainingResult(policy, steps=step_of(checkpoint), seconds=time.monotonic() - began)


def plan(config: Config) -> tuple[DictConfig, dict[str, Any]]:
    """verl's configuration and the plan of a run, checked, with nothing started or downloaded.

    Raises:
        ConfigError: verl refuses the configuration.
    """
    run_dir = Path(config.run_dir)
    composed = verl_config.grpo_config(config, Paths(config.policy.path, run_dir, Path(tempfile.gettempdir())))
    verl_config.check(composed)
    grpo, cluster, rollout = config.grpo, config.cluster, config.rollout
    gpus = cluster.nodes * cluster.gpus_per_node
    episodes = grpo.tasks_per_step * grpo.group_size
    return composed, {
        "policy": config.policy.path,
        "device": cluster.device,
        "pool": f"{cluster.nodes} node(s) x {cluster.gpus_per_node} {_slots(cluster.device)}",
        "trainer": f"FSDP2 over {gpus} rank(s), {config.policy.dtype}",
        "rollout": f"{gpus // rollout.tensor_parallel} vLLM engine(s), tensor parallel {rollout.tensor_parallel}",
        "rollout_workers": rollout.workers,
        "episodes_per_step": episodes,
        "samples_per_step": f"{episodes} to {episodes * config.episode.max_turns}",
        "episodes_per_update": episodes // grpo.updates_per_step,
        "updates_per_step": grpo.updates_per_step,
        "group_size": grpo.group_size,
        "steps": grpo.steps,
        "lr": grpo.lr,
        "kl": f"{grpo.kl_coef:g} ({grpo.kl_type})" if grpo.kl_coef else "off",
        "max_pixels": config.policy.max_pixels,
        "tokens": f"{config.policy.max_prompt_tokens} prompt + {config.policy.max_reply_tokens} reply",
        "editor": config.editor.name,
        "judge": config.judge.name,
        "advantage": f"{config.grpo.advantage.estimator}, scale {config.grpo.advantage.scale}",
        "checkpoints": f"every {grpo.save_every} steps in {run_dir / 'checkpoints'}",
    }


def prepare(config: Config, composed: DictConfig, paths: Paths) -> None:
    """Write what the child processes read: both configurations and the agent loop's entry."""
    paths.run_dir.mkdir(parents=True, exist_ok=True)
    save_config(config, paths.config)
    OmegaConf.save(composed, paths.run_dir / "verl.yaml")
    # verl builds one loop object per episode from this entry (agent_loop_config_path).
    entry = {
        "name": verl_config.AGENT,
        "_target_": verl_config.AGENT_LOOP,
        "config_path": str(paths.config),
        "trajectories": str(paths.run_dir / "trajectories"),
    }
    OmegaConf.save(OmegaConf.create([entry]), paths.agent)


def process_environment(config: Config, paths: Paths) -> dict[str, str]:
    """The child's whole environment."""
    environment = dict(os.environ)
    environment |= {
        RUN_KEY: paths.scratch.name,
        "TENSORBOARD_DIR": str(paths.run_dir / "tensorboard"),
        "HYDRA_FULL_ERROR": "1",
        "VERL_LOGGING_LEVEL": environment.get("VERL_LOGGING_LEVEL", "WARN"),
        "VLLM_LOGGING_LEVEL": environment.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "RAY_DEDUP_LOGS": "0",
        "PYTHONUNBUFFERED": "1",
    }
    if config.cluster.device == "cpu":
        environment |= cpu_environment(threads=config.cluster.cpu_threads, scratch=paths.scratch)
    return environment


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A short-named folder for sockets and Ray's session, removed afterwards."""
    # Unix sockets allow about a hundred characters, so this cannot live in the run folder.
    folder = Path(tempfile.mkdtemp(prefix="te-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def follow(command: list[str], *, environment: dict[str, str], run_dir: Path, on_step: OnStep | None) -> None:
    """Run a training process to its end, handing on each line of its metrics.

    Raises:
        TrainingFailed: it ended with an error.
    """
    metrics, log = run_dir / METRICS, run_dir / LOG
    with open(log, "ab") as output:
        start = output.tell()
        reader = _NewLines(metrics)
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                for line in reader.read():
                    if on_step is not None:
                        on_step(json.loads(line))
                time.sleep(POLL_S)
        except BaseException:
            process.terminate()  # Ray ends its own children with its driver
            process.wait(timeout=60)
            raise
    for line in reader.read():
        if on_step is not None:
            on_step(json.loads(line))
    if process.returncode != 0:
        text = log.read_bytes()[start:].decode(errors="replace")
        tail = "\n".join(text.splitlines()[-TAIL_LINES:])
        raise TrainingFailed(f"{' '.join(command[1:3])} ended with {process.returncode}; see {log}\n{tail}")


class _NewLines:
    """Whole lines that a file gained since it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def read(self) -> list[str]:
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode().splitlines()


def latest_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint.

    Raises:
        TrainingFailed: there is none.
    """
    marker = folder / "latest_checkpointed_iteration.txt"
    if not marker.exists():
        raise TrainingFailed(f"no checkpoint in {folder}")
    return folder / f"global_step_{marker.read_text().strip()}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("global_step_"))


def export_policy(checkpoint: Path, base: str | Path, out: str | Path) -> Path:
    """Copy a checkpoint's model to `out` as an ordinary Hugging Face folder.

    What verl does not save (processor, chat template, generation settings) comes from `base`, the
    policy that training started from.
    """
    found = [folder for folder in (checkpoint / "actor" / "huggingface", checkpoint / "huggingface") if folder.is_dir()]
    if not found:
        raise TrainingFailed(f"{checkpoint} holds no exported model")
    out = Path(out)
    staging = out.with_name(out.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(found[0], staging)
    if Path(base).is_dir():
        for file in Path(base).iterdir():
            if file.is_file() and file.suffix != ".safetensors" and not (staging / file.name).exists():
                shutil.copy2(file, staging / file.name)
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
    return out


def end_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it dies (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _task_count(config: Config) -> int | None:
    tasks = plugins.build("tasks", config.tasks.name, config.tasks.options)
    count = tasks.size("train")
    return None if count is None else int(count)


def _local(path: str | Path) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else str(path)


def _slots(device: str) -> str:
    return "GPU(s)" if device == "cuda" else "CPU slot(s)"


def main(path: str) -> None:
    """The child's side: run verl's task runner with our trainer registered."""
    end_with_parent()
    config = OmegaConf.load(path)

    import ray
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
    from verl.trainer.main_ppo import TaskRunnerV1

    import thinkedit.learner.trainer  # noqa: F401  # registers verl_config.TRAINER

    verl_config.check(config)  # type: ignore[arg-type]
    runtime_env = OmegaConf.merge(get_ppo_ray_runtime_env(config), config.ray_kwargs.ray_init.runtime_env)
    runtime_env.setdefault("env_vars", {})["TRANSFER_QUEUE_ENABLE"] = "1"
    os.environ["TRANSFER_QUEUE_ENABLE"] = "1"
    ray.init(**{**OmegaConf.to_container(config.ray_kwargs.ray_init), "runtime_env": OmegaConf.to_container(runtime_env)})
    try:
        TaskRunnerV1.__ray_actor_class__().run(config)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])

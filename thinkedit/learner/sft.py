"""SFT warm start: verl's own SFT trainer on demonstrations, in a process group of its own.

`run_sft` is the caller's side. The children run verl's `SFTTrainer` under torchrun, on a CPU as on
GPUs; around it stand only a frozen vision tower, mended positions, and metrics that survive a resume.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from thinkedit.configs.load import save_config
from thinkedit.configs.schema import Config
from thinkedit.learner import verl_config
from thinkedit.learner.grpo import (
    METRICS,
    OnStep,
    TrainingResult,
    end_with_parent,
    export_policy,
    follow,
    latest_checkpoint,
    process_environment,
    scratch_folder,
    step_of,
)
from thinkedit.learner.verl_config import Paths


def run_sft(
    config: Config, data: str | Path, run_dir: str | Path, *, on_step: OnStep | None = None
) -> TrainingResult:
    """Train `config.policy.path` on a parquet of `messages` and `images`; export to `run_dir/policy`.

    A folder that holds a checkpoint is resumed.

    Args:
        on_step: called with each step's metrics ("step", "train/loss", ...), soon after the step.

    Raises:
        TrainingFailed: the processes failed; the whole log is in `run_dir/log.txt`.
    """
    run_dir = Path(run_dir).resolve()
    began = time.monotonic()
    with scratch_folder() as scratch:
        base = Path(config.policy.path)
        policy = str(base.resolve()) if base.exists() else config.policy.path
        paths = Paths(policy=policy, run_dir=run_dir, scratch=scratch)
        composed = verl_config.sft_config(config, Path(data).resolve(), paths)
        run_dir.mkdir(parents=True, exist_ok=True)
        save_config(config, paths.config)
        OmegaConf.save(composed, run_dir / "verl.yaml")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        ranks = ["--nproc-per-node", str(config.cluster.gpus_per_node)]
        follow(
            [*torchrun, *ranks, "-m", "thinkedit.learner.sft", str(run_dir)],
            environment=process_environment(config, paths),
            run_dir=run_dir,
            on_step=on_step,
        )
    checkpoint = latest_checkpoint(paths.checkpoints)
    exported = export_policy(checkpoint, paths.policy, run_dir / "policy")
    return TrainingResult(exported, steps=step_of(checkpoint), seconds=time.monotonic() - began)


def main(folder: str) -> None:
    """One rank: verl's trainer over the configuration that `run_sft` wrote."""
    end_with_parent()
    run_dir = Path(folder)
    config = OmegaConf.load(run_dir / "verl.yaml")
    freeze = OmegaConf.load(run_dir / "config.yaml").sft.freeze_vision

    import torch
    from verl.trainer import sft_trainer
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group
    from verl.utils.tracking import Tracking

    from thinkedit.learner.worker import LearnerTrainingWorker, freeze_vision

    class Recorder(Tracking):  # type: ignore[misc]  # verl is untyped
        """verl's loggers, and a line per step in metrics.jsonl (verl's file logger truncates it)."""

        def log(self, data: Mapping[str, Any], step: int, backend: Any = None) -> None:
            super().log(data=data, step=step, backend=backend)
            numbers = {key: float(value) for key, value in data.items() if isinstance(value, int | float)}
            with open(run_dir / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "time": time.time(), **numbers}) + "\n")

    class Worker(LearnerTrainingWorker):  # type: ignore[misc]  # verl is untyped
        """verl's training worker; the optimiser is built by `reset`, so freezing comes before it."""

        def reset(self) -> None:
            super().reset()
            if freeze:
                freeze_vision(self.engine.module)

    # fit() and _build_engine() name these two classes and offer no other way in.
    sft_trainer.Tracking = Recorder
    sft_trainer.TrainingWorker = Worker

    if config.trainer.device == "cpu":
        torch.distributed.init_process_group("gloo")
    else:
        initialize_global_process_group()
    try:
        sft_trainer.SFTTrainer(config=config).fit()
    finally:
        destroy_global_process_group()


if __name__ == "__main__":
    main(sys.argv[1])

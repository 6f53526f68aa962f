"""The SFT warm start on verl's SFT trainer, in a process (or several) of its own.

`run_sft` is the caller's side. The child is this module's `main`: verl's trainer with our training
worker (positions, frozen vision) and metrics that survive a resume.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thinkedit.configs.load import save_config
from thinkedit.configs.schema import Config
from thinkedit.learner import verl_config
from thinkedit.learner.launch import (
    OnStep,
    TrainingResult,
    append_metrics,
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


def run_sft(
    config: Config,
    data: str | Path,
    run_dir: str | Path,
    *,
    policy_path: str | Path | None = None,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train on demonstrations and export the result to `run_dir/policy`.

    A folder that holds checkpoints is resumed.

    Args:
        data: parquet with columns `messages` and `images`.
        policy_path: where to start; `config.policy.path` if not given.
        on_step: called with each step's metrics, in order, soon after the step.

    Raises:
        TrainingFailed: the process failed; the whole log is in `run_dir/log.txt`.
    """
    run_dir, data = Path(run_dir).resolve(), Path(data).resolve()
    began = time.monotonic()
    with scratch_folder() as scratch:
        paths = Paths(policy=local_path(policy_path or config.policy.path), run_dir=run_dir, scratch=scratch)
        composed = verl_config.sft_config(config, data, paths)
        run_dir.mkdir(parents=True, exist_ok=True)
        save_config(config, paths.config)
        OmegaConf.save(composed, run_dir / "verl.yaml")
        environment = process_environment(config, paths, threads=1)
        command = [sys.executable, "-m", "thinkedit.learner.sft", str(run_dir)]
        follow(command, environment=environment, run_dir=run_dir, on_step=on_step)
    checkpoint = latest_checkpoint(paths.checkpoints)
    policy = export_policy(checkpoint, paths.policy, run_dir / "policy")
    return TrainingResult(policy, steps=step_of(checkpoint), seconds=time.monotonic() - began)


def main(run_dir: Path) -> None:
    """The child's side: the launcher of the ranks, or a rank."""
    end_with_parent()
    config = OmegaConf.load(run_dir / "verl.yaml")
    assert isinstance(config, DictConfig)
    ranks = config.trainer.n_gpus_per_node
    alone = ranks == 1
    if ranks > 1 and "RANK" not in os.environ:
        from torch.distributed.run import main as launch

        launch(["--standalone", f"--nproc_per_node={ranks}", "-m", "thinkedit.learner.sft", str(run_dir)])
        return
    if alone:
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # verl asks; nobody listens

    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

    if alone:
        # One rank talks to itself through memory: no port that another run may hold.
        backend = "gloo" if config.trainer.device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    elif config.trainer.device == "cpu":
        dist.init_process_group("gloo")  # verl would ask for "cpu:gloo,cpu:gloo", which torch refuses
    else:
        initialize_global_process_group()
    build_trainer(config, run_dir).fit()
    destroy_global_process_group()


def build_trainer(config: DictConfig, run_dir: Path) -> Any:
    """verl's SFT trainer with our worker in it."""
    from verl.trainer.sft_trainer import SFTTrainer
    from verl.utils import tensordict_utils as tu

    from thinkedit.learner.worker import LearnerTrainingWorker, freeze_vision

    class RecordingWorker(LearnerTrainingWorker):
        """Writes each step's figures to metrics.jsonl (verl's file logger truncates on a resume)."""

        step = 0

        def train_batch(self, data: Any) -> Any:
            began = time.monotonic()
            output = super().train_batch(data)
            self.step += 1
            if self.engine.is_mp_src_rank_with_outputs() and self.engine.get_data_parallel_rank() == 0:
                metrics = tu.get(output, "metrics")
                figures = {
                    f"train/{name}": float(metrics[name])
                    for name in ("loss", "grad_norm", "lr")
                    if name in metrics
                }
                append_metrics(run_dir, self.step, {**figures, "timing_s/step": time.monotonic() - began})
            return output

    class WarmStart(SFTTrainer):  # type: ignore[misc]  # verl is untyped
        def _build_engine(self) -> None:
            super()._build_engine()
            # verl names its worker class in the method's body: build ours of the same configuration.
            worker: Any = RecordingWorker(config=vars(self)["training_client"].config)
            worker.set_loss_fn(loss_fn=self.loss_fn)
            self.training_client, self.engine = worker, worker.engine

        def _init_engine(self) -> None:
            super()._init_engine()
            if config.data.freeze_vision:
                freeze_vision(self.engine.module)

    trainer = WarmStart(config=config)
    trainer.training_client.step = trainer.resume_global_step
    return trainer


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What SFT and GRPO share on the caller's side: a child process, its environment, its metrics."""

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

from thinkedit.configs.schema import Config
from thinkedit.errors import ThinkEditError
from thinkedit.learner.cpu.environment import cpu_environment
from thinkedit.learner.interpolation import interpolate
from thinkedit.learner.sockets import RUN_KEY
from thinkedit.learner.verl_config import Paths

METRICS = "metrics.jsonl"
LOG = "log.txt"
MARKER = "latest_checkpointed_iteration.txt"  # verl's, beside the checkpoints; names the newest
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
    seconds: of this start.
    """

    policy: Path
    steps: int
    seconds: float


def process_environment(config: Config, paths: Paths, *, threads: int) -> dict[str, str]:
    """The child's whole environment. threads: OpenMP threads of each process on a CPU."""
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
        environment |= cpu_environment(
            threads=threads, scratch=paths.scratch, rollout_threads=config.rollout.cpu_threads
        )
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
    log = run_dir / LOG
    reader = NewLines(run_dir / METRICS)

    def report() -> None:
        for line in reader.read():
            if on_step is not None:
                on_step(json.loads(line))

    with open(log, "ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                report()
                time.sleep(POLL_S)
        except BaseException:
            process.terminate()  # Ray ends its own children with its driver
            process.wait(timeout=60)
            raise
    report()
    if process.returncode != 0:
        text = log.read_bytes()[start:].decode(errors="replace")
        tail = "\n".join(text.splitlines()[-TAIL_LINES:])
        raise TrainingFailed(f"training ended with code {process.returncode}; see {log}\n{tail}")


class NewLines:
    """Whole lines that a file gained since this was made."""

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


def append_metrics(folder: Path, step: int, metrics: Mapping[str, Any]) -> None:
    """One line of metrics.jsonl, on disk when this returns."""
    line = json.dumps({"step": step, "time": round(time.time(), 3), **metrics})
    with open(folder / METRICS, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def end_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it dies (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def latest_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint.

    Raises:
        TrainingFailed: there is none.
    """
    marker = folder / MARKER
    if not marker.exists():
        raise TrainingFailed(f"no checkpoint in {folder}")
    return folder / f"global_step_{marker.read_text().strip()}"


def step_of(checkpoint: Path) -> int:
    """The optimiser step that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix("global_step_"))


def export_policy(checkpoint: Path, base: str | Path, out: str | Path, share: float = 1.0) -> Path:
    """Copy a checkpoint's model to `out` as an ordinary Hugging Face folder.

    What verl does not save (processor, chat template, generation settings) comes from `base`, the
    policy that training started from. With a `share` below 1 the weights go part of the way from there
    (`thinkedit.learner.interpolation`); the checkpoint keeps its own.

    Raises:
        TrainingFailed: the checkpoint holds no exported model.
        WeightsDiffer: it can't be mixed with `base`.
    """
    candidates = (checkpoint / "actor" / "huggingface", checkpoint / "huggingface")
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        raise TrainingFailed(f"{checkpoint} holds no exported model")
    out = Path(out)
    staging = out.with_name(out.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(found, staging)
    if Path(base).is_dir():
        for file in Path(base).iterdir():
            if (
                file.is_file()
                and file.suffix not in (".safetensors", ".md")
                and not (staging / file.name).exists()
            ):
                shutil.copy2(file, staging / file.name)
    interpolate(base, staging, share)
    _name_dtype(staging)
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
    return out


def _name_dtype(folder: Path) -> None:
    """Write the weights' own dtype into config.json.

    verl exports every model as "bfloat16" there, to which `from_pretrained` would round other weights.
    """
    from safetensors import safe_open

    file, weights = folder / "config.json", next(folder.glob("*.safetensors"), None)
    if weights is None or not file.exists():
        return  # a model in another format, as it came
    with safe_open(weights, "pt") as opened:
        dtype = str(opened.get_tensor(next(iter(opened.keys()))).dtype).removeprefix("torch.")
    config = json.loads(file.read_text())
    for part in (config, *config.values()):  # the model, its text and its vision
        if isinstance(part, dict) and "dtype" in part:
            part["dtype"] = dtype
    file.write_text(json.dumps(config, indent=2) + "\n")


def local_path(path: str | Path) -> str:
    """An absolute path of a folder that is here; a hub name as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else str(path)

"""The environment that makes verl's processes run on a CPU."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROLLOUT_THREADS = "THINKEDIT_ROLLOUT_THREADS"


def cpu_environment(*, threads: int, scratch: Path, rollout_threads: int = 1) -> dict[str, str]:
    """Variables for the learner's process tree; Ray's workers inherit them.

    Args:
        threads: OpenMP threads per process, but for the rollout engine, which has `rollout_threads`.
        scratch: an existing folder that is this run's own.

    Returns:
        Names and values to put into the child's environment, over the present one.
    """
    python_path = [str(vllm_name(scratch / "site")), os.environ.get("PYTHONPATH", "")]
    return {
        # verl's platform plug-in and engine; never chosen by detection (verl/plugin/platform).
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "thinkedit.learner.cpu.platform",
        "VERL_ENGINE_DEVICE": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
        # Threads that spin while they wait cost up to ten times on a busy machine.
        "OMP_NUM_THREADS": str(threads),
        ROLLOUT_THREADS: str(rollout_threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "TQ_NUM_THREADS": "1",
        # vLLM would pin threads to cores that the trainer uses too.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Lets the engine run its one worker in its own process instead of a further one; the server
        # keeps talking to the engine through a socket either way.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        # Logical "GPU" slots must not make Ray hide devices; no idle workers; nothing is sent home.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_usage_threshold": "0.98",
    }


def vllm_name(folder: Path) -> Path:
    """Make the distribution name `vllm` known where only `vllm-cpu` is installed.

    verl (third_party/vllm/__init__.py) and vLLM look their version up under that name, and vLLM's
    platform detection wants "cpu" in it. The answer is a folder with metadata and no code, put on
    the path of child processes.

    Returns:
        The folder to put on PYTHONPATH (empty where the name is known already).
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        version("vllm")
    except PackageNotFoundError:
        number = version("vllm-cpu").split("+")[0] + "+cpu"
        info = folder / f"vllm-{number}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")
    return folder

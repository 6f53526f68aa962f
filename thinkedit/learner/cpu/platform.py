"""verl's platform plug-in for plain CPUs (`VERL_PLATFORM=cpu`).

verl 0.9.1 ships cuda, npu and rocm. Its registry takes others through
`VERL_USE_EXTERNAL_MODULES`; importing this module registers ours. It never claims to be present
during detection, so a machine with a GPU is not touched.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

_PRETEND_BYTES = 1 << 33


class _CPUDevice(types.ModuleType):
    """`torch.cpu` with the memory and device calls that verl makes on `torch.cuda`."""

    def __init__(self) -> None:
        super().__init__("thinkedit_cpu_device")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_name(self, device: Any = None) -> str:
        return "CPU"

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return _PRETEND_BYTES, _PRETEND_BYTES

    def _zero(self, *args: Any, **kwargs: Any) -> int:
        return 0

    memory_allocated = memory_reserved = max_memory_allocated = max_memory_reserved = _zero

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        return None

    empty_cache = synchronize = set_device = ipc_collect = reset_peak_memory_stats = _nothing
    set_per_process_memory_fraction = _nothing


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):  # type: ignore[misc]  # verl is untyped
    """Gloo for communication, shared memory for weights, Ray "GPU" resources as logical slots."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _CPUDevice()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # only ever chosen by name

    def current_device(self) -> Any:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "VERL_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        # single_controller/ray/base.py counts slots in "GPU"; ray.init(num_gpus=N) makes N of them.
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # weights then travel through shared memory

    def cudart(self) -> Any:
        return None

"""verl's FSDP2 engine for device "cpu" (`model.external_lib`).

verl imports this module in every process that holds a model, before it opens the process group
or looks an engine up. It replaces nothing of verl's, and of transformers' the patch embedding.
"""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.nn import functional
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchEmbed
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl


def open_gloo_group() -> None:
    """Open the process group that verl's launcher described in the environment.

    verl would ask for the backend "cpu:gloo,cpu:gloo" (utils/distributed.py), which torch refuses;
    where a group exists already it opens none.
    """
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ and not dist.is_initialized():
        dist.init_process_group(
            "gloo",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            init_method=os.environ.get("DIST_INIT_METHOD"),
        )


def embed_patches(self: Qwen3VLVisionPatchEmbed, hidden_states: torch.Tensor) -> torch.Tensor:
    """Qwen3-VL's patch embedding as the matrix product that it is.

    The model's own is a convolution as wide as its stride, whose backward pass on a CPU took an eighth
    of an update.
    """
    weight = self.proj.weight.flatten(1)
    patches = hidden_states.to(weight.dtype).view(-1, weight.shape[1])
    return functional.linear(patches, weight, self.proj.bias)


def _unpinned(pin_memory: bool = True) -> CPUOffloadPolicy:
    return CPUOffloadPolicy(pin_memory=False)


if os.environ.get("VERL_PLATFORM") == "cpu":
    open_gloo_group()
    Qwen3VLVisionPatchEmbed.forward = embed_patches

    @EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")
    class CPUEngine(transformer_impl.FSDPEngineWithLMHead):  # type: ignore[misc]
        """verl's own engine without page-locked memory."""

        def _build_fsdp_module(self, module: Any) -> Any:
            # A forward-only model asks for CPUOffloadPolicy(pin_memory=True), which needs a GPU.
            with patch.object(transformer_impl, "CPUOffloadPolicy", _unpinned):
                return super()._build_fsdp_module(module)

"""The options of the diffusers editor, and what contradicts itself among them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from thinkedit.actors.diffusion.models import FULL_AREA, MODELS, Model
from thinkedit.errors import ConfigError, UnknownName

DTYPES = ("bfloat16", "float16", "float32")
OFFLOADS = ("model", "sequential")
QUANTIZATIONS = ("int8", "int8_dynamic", "fp8", "fp8_dynamic")
# Those with CUDA graphs are left out: a block's graph overwrites what the block before it gave.
COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")
MIN_AREA = 64 * 64  # pixels


@dataclass
class DiffusersConfig:
    """Which model, from where, what it is asked with, and how it runs. None: as the table has it."""

    model: str = "flux_kontext"  # a row of thinkedit/actors/diffusion/models.py
    weights: str | None = None  # a folder, or owner/name at the hub
    revision: str = "main"  # branch, tag or commit at the hub; for a folder, yours. Part of the cache key
    steps: int | None = None
    guidance: float | None = None  # how strictly the prompt is followed
    image_guidance: float | None = None  # how strictly the source is kept, where a model can be told
    negative_prompt: str | None = None
    area: int | None = None  # pixels the model works at; the result has the source's size all the same
    scheduler: str | None = None  # a class of diffusers; None: the one of the weights
    scheduler_options: dict[str, Any] = field(default_factory=dict)  # on top of its own
    lora: str | None = None  # a .safetensors file, a folder, or owner/name at the hub
    lora_file: str | None = None  # which file of the folder or repository
    lora_scale: float = 1.0
    dtype: str = "bfloat16"
    device: str = "cuda"  # cuda, cuda:1, cpu
    quantization: str | None = None  # linear layers: int8, fp8 weights; with _dynamic, multiplied in it too
    offload: str | None = None  # model or sequential: what is not needed waits in the CPU's memory
    compile: str | None = None  # a mode of torch.compile for the repeated blocks

    def __post_init__(self) -> None:
        """
        Raises:
            UnknownName: a name outside its list; the message offers the nearest.
            ConfigError: a value out of range, one that the model has no use for, or two that exclude
                each other.
        """
        _check(self)


def area(config: DiffusersConfig) -> int:
    """Pixels that the model works at."""
    return MODELS[config.model].area if config.area is None else config.area


def arguments(config: DiffusersConfig) -> dict[str, Any]:
    """What the pipeline is called with at every edit, by the names of its own arguments."""
    model = MODELS[config.model]
    asked = {
        **model.fixed,
        "num_inference_steps": model.steps if config.steps is None else config.steps,
        model.guidance.argument: _guidance(config, model),
    }
    if model.image_guidance is not None:
        given = config.image_guidance
        asked[model.image_guidance.argument] = model.image_guidance.default if given is None else given
    if model.negative_prompt is not None and _guidance(config, model) > 1:
        text = config.negative_prompt
        asked["negative_prompt"] = model.negative_prompt if text is None else text
    return asked


def _check(config: DiffusersConfig) -> None:
    _one_of("model of the diffusers editor", config.model, MODELS)
    model = MODELS[config.model]
    _one_of("dtype", config.dtype, DTYPES)
    _one_of("quantization", config.quantization, QUANTIZATIONS)
    _one_of("offload", config.offload, OFFLOADS)
    _one_of("compile", config.compile, COMPILE_MODES)
    _one_of(f"scheduler for {config.model}", config.scheduler, model.schedulers)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", config.device):
        raise ConfigError(f"device={config.device}: must be cpu, cuda, or cuda:N")
    if config.steps is not None and config.steps < 1:
        raise ConfigError(f"steps={config.steps}: must be at least 1")
    if config.area is not None and not MIN_AREA <= config.area <= FULL_AREA:
        raise ConfigError(f"area={config.area}: must lie in [{MIN_AREA}, {FULL_AREA}] pixels")
    _check_guidance(config, model)
    _check_lora(config, model)
    _check_placement(config)


def _guidance(config: DiffusersConfig, model: Model) -> float:
    return model.guidance.default if config.guidance is None else config.guidance


def _check_guidance(config: DiffusersConfig, model: Model) -> None:
    guidance, image_guidance = _guidance(config, model), config.image_guidance
    if not (guidance >= 0 and isfinite(guidance)):
        raise ConfigError(f"guidance={guidance}: must not be negative")
    if image_guidance is not None and not (image_guidance >= 1 and isfinite(image_guidance)):
        raise ConfigError(f"image_guidance={image_guidance}: must be at least 1, which switches it off")
    given: dict[str, tuple[object, bool]] = {
        "image_guidance": (image_guidance, model.image_guidance is not None),
        "negative_prompt": (config.negative_prompt, model.negative_prompt is not None),
    }
    for option, (value, known) in given.items():
        if value is None:
            continue
        if not known:
            raise ConfigError(f"{option}={value!r}: {config.model} takes none")
        if guidance <= 1:
            raise ConfigError(f"{option}={value!r}: counts only with guidance above 1, which is {guidance}")


def _check_lora(config: DiffusersConfig, model: Model) -> None:
    if config.lora is not None and not model.lora:
        raise ConfigError(f"lora={config.lora}: the pipeline of {config.model} can load none")
    if config.lora is None and (config.lora_file is not None or config.lora_scale != 1):
        raise ConfigError("lora_file and lora_scale need a lora that they belong to")
    if not isfinite(config.lora_scale) or config.lora_scale == 0:
        raise ConfigError(f"lora_scale={config.lora_scale}: must be finite, and 0 would be no LoRA at all")


def _check_placement(config: DiffusersConfig) -> None:
    if config.offload is not None and config.device == "cpu":
        raise ConfigError(f"offload={config.offload}: there is nothing to offload from on device=cpu")
    if config.offload == "sequential":
        for option in ("quantization", "compile"):
            if getattr(config, option) is not None:
                raise ConfigError(
                    f"{option}={getattr(config, option)}: not with offload=sequential, which takes layers "
                    "apart; offload=model goes with it"
                )


def _one_of(what: str, value: str | None, known: Collection[str]) -> None:
    if value is not None and value not in known:
        raise UnknownName(what, value, known)

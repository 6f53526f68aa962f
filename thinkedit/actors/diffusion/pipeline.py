"""One pipeline of diffusers: loaded whole or not at all, and asked for one edit at a time.

Importing this module imports torch and diffusers; `editor` does so at the first edit.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, Self

import diffusers
import numpy as np
import torch
from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj
from PIL import Image
from safetensors import SafetensorError, safe_open

from thinkedit.actors.diffusion import options, weights
from thinkedit.actors.diffusion.models import FULL_AREA, MODELS, Model, Sizing
from thinkedit.actors.diffusion.options import DiffusersConfig
from thinkedit.envs.editors.pictures import scale
from thinkedit.envs.editors.wire import sendable
from thinkedit.errors import ConfigError, EditorError, UnknownName
from thinkedit.types import RGB

MAX_ASPECT = 8  # beyond 8:1 no model was trained, and some refuse
MIN_SIDE = 64  # pixels at work
_LORA = "edit"
# Held during an edit: two editors of one process would draw from each other's global generator.
_ONE_AT_A_TIME = threading.Lock()
_LORA_DOWN = (".lora_A.weight", ".lora_down.weight", ".lora.down.weight")  # one such tensor a layer
_LOADING = (OSError, ValueError, RuntimeError, KeyError, AttributeError, ImportError, SafetensorError)


class Stopped(Exception):
    """Nobody waits for the edit any more, so it was given up between two steps."""


class EditPipeline:
    """A pipeline made ready. One process makes one edit at a time, whatever the number of its pipelines.

    `pipeline` is the one of diffusers.
    """

    def __init__(self, config: DiffusersConfig, pipeline: Any) -> None:
        """
        Args:
            pipeline: of the class that the table names for `config.model`. It is changed in place: its
                scheduler, its weights and where they are.

        Raises:
            ConfigError: no such device, or scheduler options, an adapter or a guidance that don't fit
                these weights.
        """
        self._name, self._model = config.model, MODELS[config.model]
        self._area, self._asked = options.area(config), options.arguments(config)
        device = _device(config.device)
        self.pipeline = pipeline
        self.pipeline.set_progress_bar_config(disable=True)
        for part in self.pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()  # no dropout
        # It warns at every edit of a prompt that it has to cut.
        logging.getLogger(type(pipeline).__module__).setLevel(logging.ERROR)
        _check_distilled(self.pipeline, config)
        _set_scheduler(self.pipeline, config)
        _check_steps(self.pipeline.scheduler, self._asked["num_inference_steps"])
        if config.lora is not None:
            _fuse_lora(self.pipeline, weights.find_lora(config.lora, config.lora_file), config.lora_scale)
        if config.quantization is not None:
            _quantize(self.pipeline, self._model, config.quantization, device)
        self._stopped: Callable[[], bool] = lambda: False
        denoiser = getattr(self.pipeline, self._model.denoiser)
        denoiser.register_forward_pre_hook(self._stop_here)
        if config.compile is not None:
            _compile(denoiser, config.compile)
        _place(self.pipeline, device, config.offload)
        self._devices = [device] if device.type == "cuda" else []
        self._call = _with_area(self.pipeline, self._model, self._area)

    @classmethod
    def load(cls, config: DiffusersConfig) -> Self:
        """From a folder or the hub; takes seconds for small models and minutes for large ones.

        Raises:
            ConfigError: as the constructor, and weights that are missing, damaged, pickled or another
                model's.
        """
        _device(config.device)
        named = config.weights or MODELS[config.model].weights
        folder = weights.local_folder(named) or weights.download(named, config.revision)
        return cls(config, _assemble(folder, config))

    def edit(self, source: RGB, prompt: str, seed: int, stopped: Callable[[], bool]) -> RGB:
        """One edit, at the source's size.

        Args:
            stopped: asked before each run of the denoiser; True gives the edit up.

        Raises:
            EditorError: the pipeline raised, ran out of memory, or gave no picture.
            Stopped: as `stopped` said.
        """
        picture, arguments = self._sized(source)
        self._stopped = stopped
        try:
            # Some pipelines and schedulers draw from the global generator too: that one must repeat, and
            # be left as it was.
            with _ONE_AT_A_TIME, torch.no_grad(), torch.random.fork_rng(self._devices):
                torch.manual_seed(seed % 2**64)
                result = self._call(
                    prompt=self._fitting(sendable(prompt)),
                    # On the CPU, so that the noise is the same on every device.
                    generator=torch.Generator("cpu").manual_seed(seed % 2**64),
                    output_type="np",
                    **{self._model.picture: [picture] if self._model.in_list else picture},
                    **arguments,
                    **self._asked,
                )
        except Stopped:
            self.pipeline.maybe_free_model_hooks()
            raise
        except torch.OutOfMemoryError as error:
            self.pipeline.maybe_free_model_hooks()
            torch.cuda.empty_cache()
            raise EditorError(
                f"{self._name}: out of GPU memory; try offload=model, quantization=int8 or a smaller area"
            ) from error
        except Exception as error:  # pipelines raise anything; none of it may pass untyped
            self.pipeline.maybe_free_model_hooks()
            raise EditorError(f"{self._name}: {type(error).__name__}: {error}") from error
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise EditorError(f"{self._name}: its safety checker blanked the picture")
        return scale(self._pixels(result.images[0]), source.shape[1::-1])

    def _stop_here(self, *_: object) -> None:
        if self._stopped():
            raise Stopped

    def _sized(self, source: RGB) -> tuple[Image.Image, dict[str, int]]:
        """The picture as the pipeline shall get it, and the arguments that tell it the size."""
        height, width = source.shape[:2]
        if max(height, width) > MAX_ASPECT * min(height, width):
            raise EditorError(f"{self._name}: {width}x{height} is longer than {MAX_ASPECT}:1")
        picture = Image.fromarray(source)
        if self._model.sizing is Sizing.FIXED:
            return picture, {}  # it scales for itself; once is enough
        factor, multiple = math.sqrt(self._area / (height * width)), self._model.multiple
        width, height = (max(MIN_SIDE, int(side * factor) // multiple * multiple) for side in (width, height))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        if self._model.sizing is Sizing.PICTURE:
            return picture, {}
        told = {"height": height, "width": width, "max_area": height * width}
        known = inspect.signature(self.pipeline.__call__).parameters
        return picture, {name: value for name, value in told.items() if name in known}

    def _fitting(self, prompt: str) -> str:
        """The prompt as far as the model reads it."""
        if not isinstance(self.pipeline, diffusers.LongCatImageEditPipeline):
            return prompt  # the pipelines cut for themselves
        # LongCat's means to, but falls over its own warning (diffusers 0.42.1).
        from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import split_quotation

        def tokens(text: str) -> int:
            parts = [
                part for words, quoted in split_quotation(text) for part in (words if quoted else [words])
            ]
            return sum(
                len(self.pipeline.tokenizer(part, add_special_tokens=False).input_ids) for part in parts
            )

        limit = self.pipeline.tokenizer_max_length
        while (count := tokens(prompt)) > limit:
            prompt = prompt[: len(prompt) * limit // count]
        return prompt

    def _pixels(self, image: Any) -> RGB:
        if not np.isfinite(image).all():
            raise EditorError(
                f"{self._name}: the picture is not a number (NaN); float16 is too narrow for some models, "
                "bfloat16 is not"
            )
        return np.asarray((image * 255).round(), np.uint8)


def free_memory() -> None:
    """Give the GPU's memory of what nobody refers to any more back to others."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name}: {torch.cuda.device_count()} CUDA GPUs are visible here")
    return device


def _assemble(folder: Path, config: DiffusersConfig) -> Any:
    """The pipeline with all its components, on the CPU."""
    model = MODELS[config.model]
    index = weights.check_folder(folder, config.model, model)
    parts: dict[str, Any] = {
        name: _component(folder / name, _class(library, kind, model.own.get(name)), config.dtype)
        for name, (library, kind) in weights.components(index).items()
    }
    module, _, name = model.pipeline.rpartition(":")
    cls = _class("diffusers", name, model.pipeline if module else None)
    # An index also holds settings, and None for components that are left out.
    known = inspect.signature(cls.__init__).parameters
    parts |= {
        key: value if not isinstance(value, list) else None
        for key, value in index.items()
        if key in known and key not in parts
    }
    try:
        return cls(**parts)
    except TypeError as error:
        raise ConfigError(f"{folder}: {error}") from error


def _class(library: str, name: str, own: str | None) -> Any:
    module, _, attribute = (own or "").partition(":")
    try:
        return getattr(import_module(module), attribute) if own else simple_get_class_obj(library, name)
    except (ImportError, AttributeError) as error:
        if own:
            raise ConfigError(
                f"{attribute} needs the package {module.split('.')[0]!r} beside thinkedit ({error}); "
                "see docs/diffusion-editors.md"
            ) from error
        raise ConfigError(f"the installed {library} has no {name}") from error


def _component(folder: Path, cls: Any, dtype: str) -> Any:
    """
    Raises:
        ConfigError: damaged files, or weights that don't cover the model: diffusers and transformers
            would fill the gaps with random numbers and a warning.
    """
    try:
        if not issubclass(cls, torch.nn.Module):
            return cls.from_pretrained(folder, local_files_only=True)
        key = "torch_dtype" if issubclass(cls, diffusers.ModelMixin) else "dtype"
        part, report = cls.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **{key: getattr(torch, dtype)},
        )
    except _LOADING as error:
        raise ConfigError(f"{folder}: {cls.__name__} can't be loaded: {_first_line(error)}") from error
    gaps = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    if gaps:
        raise ConfigError(f"{folder}: {len(gaps)} tensors of {cls.__name__} are not there: {gaps[0]} ...")
    return part


def _check_distilled(pipeline: Any, config: DiffusersConfig) -> None:
    if pipeline.config.get("is_distilled") and config.guidance is not None and config.guidance > 1:
        raise ConfigError(f"guidance={config.guidance}: these weights are distilled and ignore it")


def _set_scheduler(pipeline: Any, config: DiffusersConfig) -> None:
    if config.scheduler is None and not config.scheduler_options:
        return
    cls = type(pipeline.scheduler) if config.scheduler is None else getattr(diffusers, config.scheduler)
    known = inspect.signature(cls.__init__).parameters.keys() - {"self"}
    for option in config.scheduler_options:
        if option not in known:
            raise UnknownName(f"option of {cls.__name__}", option, known)
    settings = {**MODELS[config.model].schedulers.get(cls.__name__, {}), **config.scheduler_options}
    try:
        pipeline.scheduler = cls.from_config(pipeline.scheduler.config, **settings)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"scheduler {cls.__name__}: {_first_line(error)}") from error


def _check_steps(scheduler: Any, steps: int) -> None:
    if steps < 2 and scheduler.config.get("shift_terminal"):
        raise ConfigError(
            f"steps={steps}: shift_terminal of these weights' scheduler needs two or more; it can be "
            "switched off by scheduler_options={shift_terminal: null}"
        )


def _fuse_lora(pipeline: Any, file: Path, factor: float) -> None:
    """Into the weights themselves, so that an edit costs no more than without."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    try:
        with safe_open(file, "pt") as opened:
            named = sum(key.endswith(_LORA_DOWN) for key in opened.keys())  # noqa: SIM118
        pipeline.load_lora_weights(
            str(file.parent),
            weight_name=file.name,
            adapter_name=_LORA,
            use_safetensors=True,
            local_files_only=True,
        )
    except _LOADING as error:
        raise ConfigError(f"lora: {file} does not fit these weights: {_first_line(error)}") from error
    loaded = sum(
        isinstance(layer, BaseTunerLayer) and _LORA in layer.active_adapters
        for part in pipeline.components.values()
        if isinstance(part, torch.nn.Module)
        for layer in part.modules()
    )
    if not loaded or loaded < named:
        raise ConfigError(
            f"lora: {file} is for another model; of its {named} layers {loaded} are in this one"
        )
    pipeline.fuse_lora(lora_scale=factor)
    pipeline.unload_lora_weights()


def _quantize(pipeline: Any, model: Model, kind: str, device: torch.device) -> None:
    """After an adapter was fused, which quantised weights could not take in."""
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Float8WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    if kind == "fp8_dynamic" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9)):
        raise ConfigError(
            f"quantization=fp8_dynamic: {device} multiplies no fp8 (Ada, Hopper and later GPUs do); fp8 "
            "keeps only the weights in it, and int8_dynamic works everywhere"
        )
    method = {
        "int8": Int8WeightOnlyConfig,
        "int8_dynamic": Int8DynamicActivationInt8WeightConfig,
        "fp8": Float8WeightOnlyConfig,
        "fp8_dynamic": Float8DynamicActivationFloat8WeightConfig,
    }[kind]()
    for component in model.quantized:
        quantize_(getattr(pipeline, component), method)


def _compile(denoiser: Any, mode: str) -> None:
    if not getattr(denoiser, "_repeated_blocks", None):
        raise ConfigError(f"compile={mode}: {type(denoiser).__name__} does not name the blocks to compile")
    denoiser.compile_repeated_blocks(mode=mode)


def _place(pipeline: Any, device: torch.device, offload: str | None) -> None:
    try:
        if offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        elif offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=device)
        else:
            pipeline.to(device)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the weights are too large for {device}: try offload=model or quantization=int8"
        ) from error


def _with_area(pipeline: Any, model: Model, area: int) -> Callable[..., Any]:
    """The pipeline's call, working at `area` pixels.

    Some work out their size from an area of 1024² that stands in their code. Theirs is called with a
    `calculate_dimensions` that shrinks it; the module, which other pipelines use too, stays as it is.
    """
    if model.sizing is not Sizing.FIXED or area == FULL_AREA:
        return pipeline  # type: ignore[no-any-return]  # diffusers is untyped
    call = inspect.unwrap(type(pipeline).__call__)
    if "calculate_dimensions" not in call.__code__.co_names:
        raise ConfigError(
            f"area={area}: diffusers {diffusers.__version__} offers no way to set it for this model; "
            "0.42 does"
        )
    original = call.__globals__["calculate_dimensions"]

    def calculate_dimensions(full: float, ratio: float) -> tuple[Any, ...]:
        width, height, *rest = original(full * area / FULL_AREA, ratio)
        return max(width, model.multiple), max(height, model.multiple), *rest

    names = call.__globals__ | {"calculate_dimensions": calculate_dimensions}
    smaller = FunctionType(call.__code__, names, call.__name__, call.__defaults__, call.__closure__)
    return lambda **arguments: smaller(pipeline, **arguments)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

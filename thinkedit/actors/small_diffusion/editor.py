"""The small diffusion editor as thinkedit's sessions call it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from thinkedit.envs.editors.base import Editor
from thinkedit.envs.world.sprites import SIDE
from thinkedit.errors import ConfigError, EditorError
from thinkedit.types import RGB

if TYPE_CHECKING:
    from thinkedit.actors.small_diffusion.pipeline import SmallDiffusionPipeline

SHIPPED = Path(__file__).parent / "weights"
"""A folder of diffusers with the pipeline that comes with thinkedit (see its README.md)."""

_WEIGHTS = Path("network", "diffusion_pytorch_model.safetensors")
_SETTINGS = (
    Path("network", "config.json"),
    Path("scheduler", "scheduler_config.json"),
    Path("tokenizer", "tokenizer.json"),
)


@dataclass
class SmallDiffusionConfig:
    """Options of the small diffusion editor."""

    path: str | None = None  # a folder that `thinkedit train-editor` wrote; None: the shipped one
    steps: int = 4  # of the sampler, each a pass through the network


class SmallDiffusionEditor(Editor):
    """Edits the world's pictures by a network whose faults nobody wrote down.

    Pictures must be 96 x 96, since it has seen no others; what they show is free. Edits run on the
    CPU in float32, one picture at a time and on one thread, so equal seeds give equal pixels.
    diffusers and the weights are loaded with the first edit.
    """

    Config: ClassVar[type[SmallDiffusionConfig]] = SmallDiffusionConfig
    name = "small_diffusion"
    revision = "1"
    deterministic = True

    def __init__(self, config: SmallDiffusionConfig | None = None) -> None:
        """
        Raises:
            ConfigError: no steps, no weights in the folder, or diffusers is not installed.
        """
        self._config = config or SmallDiffusionConfig()
        if self._config.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {self._config.steps}")
        self._folder = Path(self._config.path) if self._config.path else SHIPPED
        if not (self._folder / _WEIGHTS).is_file():
            raise ConfigError(
                f"no weights at {self._folder / _WEIGHTS}; `thinkedit train-editor` writes them"
            )
        if find_spec("diffusers") is None:
            raise ConfigError("the small diffusion editor needs diffusers: pip install 'thinkedit[cpu]'")
        self._pipeline: SmallDiffusionPipeline | None = None
        self._loading = threading.Lock()

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for part in (_WEIGHTS, *_SETTINGS):
            digest.update((self._folder / part).read_bytes())
        return digest.hexdigest()[:16]

    def settings(self) -> Mapping[str, Any]:
        """Steps and a digest of the saved pipeline; where it lies changes no pixel."""
        return {"steps": self._config.steps, "pipeline": self._digest}

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        """See `Editor.edit`.

        Raises:
            EditorError: the source is not 96 x 96.
        """
        if source.shape != (SIDE, SIDE, 3):
            raise EditorError(
                f"the small diffusion editor edits pictures of {SIDE} x {SIDE} only, got "
                f"{source.shape[1]} x {source.shape[0]}"
            )
        import torch

        pipeline = self._loaded()
        with _one_thread():
            edited = pipeline(
                Image.fromarray(source),
                prompt.encode("utf-8", "replace").decode(),  # the tokenizer takes no lone surrogates
                num_inference_steps=self._config.steps,
                generator=torch.Generator().manual_seed(seed),
            )
        return np.array(edited.images[0])

    def _loaded(self) -> SmallDiffusionPipeline:
        with self._loading:
            if self._pipeline is None:
                from thinkedit.actors.small_diffusion.pipeline import load

                self._pipeline = load(self._folder)
            return self._pipeline

    def close(self) -> None:
        self._pipeline = None


_turn = threading.Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch keeps to one thread within, and one caller at a time is within.

    Two threads gain nothing on so small a network, and where the cores are busy they wait for each other
    at a hundred times the cost. torch's setting is the process's, hence the turns.
    """
    import torch

    with _turn:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

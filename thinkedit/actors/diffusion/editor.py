"""An editor that is a pipeline of diffusers in this process: FLUX.1-Kontext, Qwen-Image-Edit and others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from thinkedit.actors.diffusion import options, weights
from thinkedit.actors.diffusion.models import MODELS
from thinkedit.actors.diffusion.options import DiffusersConfig
from thinkedit.envs.editors.base import Editor
from thinkedit.errors import ConfigError, EditorError
from thinkedit.types import RGB

if TYPE_CHECKING:
    from thinkedit.actors.diffusion.pipeline import EditPipeline

P = ParamSpec("P")
T = TypeVar("T")
_NEUTRAL = ("device", "offload", "steps", "guidance", "image_guidance", "negative_prompt")
"""Options that are not settings of their own: the first two leave pixels alone, the rest is among the
pipeline's arguments."""


class DiffusersEditor(Editor):
    """Edits one picture at a time, in a thread of its own, with the weights loaded by the first edit.

    Each edit has a generator of its own from its seed and runs in a batch of one, for inside a larger
    batch the last bits would depend on the neighbours. An edit that nobody waits for any more is
    dropped, or given up before its next step.
    """

    Config: ClassVar[type[DiffusersConfig]] = DiffusersConfig

    def __init__(
        self, config: DiffusersConfig, *, loader: Callable[[DiffusersConfig], EditPipeline] | None = None
    ) -> None:
        """
        Args:
            loader: gives the pipeline at the first edit; None: it is read from `config.weights`.

        Raises:
            ConfigError: a folder that holds something else, or a library that is missing.
        """
        model = MODELS[config.model]
        self.name, self.revision = config.model, config.revision
        self._config = config
        _check_libraries(config, model.pipeline)
        self._weights = config.weights or model.weights
        folder = None if loader is not None else weights.local_folder(self._weights)
        if folder is not None:
            weights.check_folder(folder, config.model, model)
        self._loader = loader
        self._lock = threading.Lock()  # guards the two below
        self._worker: ThreadPoolExecutor | None = None
        self._closing = threading.Event()
        self._pipeline: EditPipeline | None = None  # the worker's alone, as is the next
        self._why_not: ConfigError | None = None

    def settings(self) -> Mapping[str, Any]:
        given = {key: value for key, value in asdict(self._config).items() if key not in _NEUTRAL}
        return {
            **given,
            "weights": self._weights,
            "area": options.area(self._config),
            "arguments": options.arguments(self._config),
        }

    def load(self) -> None:
        """Load the weights now instead of at the first edit.

        Raises:
            ConfigError: they can't be loaded as the config says.
        """
        self._await(self._submit(self._loaded))

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        given_up = threading.Event()
        try:
            return self._await(self._submit(self._edit, source, prompt, seed, given_up))
        finally:
            given_up.set()  # of use when the caller was interrupted

    async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        given_up = threading.Event()
        future = self._submit(self._edit, source, prompt, seed, given_up)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it's the caller who was cancelled
            raise self._closed() from error
        finally:
            given_up.set()

    def close(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is None:
                return
            self._closing.set()
            worker.shutdown(cancel_futures=True)
            self._closing.clear()
            self._why_not = None
            if self._pipeline is not None:
                from thinkedit.actors.diffusion.pipeline import free_memory

                self._pipeline = None
                free_memory()

    def _submit(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        with self._lock:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"thinkedit-{self.name}")
            return self._worker.submit(work, *arguments, **named)

    def _await(self, future: Future[T]) -> T:
        try:
            return future.result()
        except CancelledError as error:
            raise self._closed() from error
        except BaseException:
            future.cancel()  # when the caller was interrupted before it began
            raise

    def _loaded(self) -> EditPipeline:
        if self._why_not is not None:
            raise self._why_not  # reading tens of gigabytes again would end no better
        if self._pipeline is None:
            from thinkedit.actors.diffusion.pipeline import EditPipeline

            try:
                self._pipeline = (self._loader or EditPipeline.load)(self._config)
            except ConfigError as error:
                self._why_not = error
                raise
            except Exception as error:  # a model's own package may raise anything as it is imported
                self._why_not = ConfigError(f"{type(error).__name__}: {error}")
                raise self._why_not from error
        return self._pipeline

    def _edit(self, source: RGB, prompt: str, seed: int, given_up: threading.Event) -> RGB:
        try:
            pipeline = self._loaded()
        except ConfigError as error:
            raise EditorError(f"{self.name} can't be loaded: {error}") from error
        from thinkedit.actors.diffusion.pipeline import Stopped

        try:
            return pipeline.edit(source, prompt, seed, lambda: given_up.is_set() or self._closing.is_set())
        except Stopped as error:
            raise self._closed() from error

    def _closed(self) -> EditorError:
        return EditorError(f"editor {self.name!r} was closed before the edit was done")


def _check_libraries(config: DiffusersConfig, pipeline: str) -> None:
    needed = ["torch", "diffusers", "transformers", "accelerate"]
    needed += ["torchao"] if config.quantization is not None else []
    needed += ["peft"] if config.lora is not None else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the diffusers editor needs {', '.join(missing)}: pip install 'thinkedit[diffusers]'"
        )
    own, colon, _ = pipeline.partition(":")
    package = own.split(".")[0]
    if colon and find_spec(package) is None:
        raise ConfigError(
            f"model={config.model} comes with its own package {package!r}, which is not installed and not at "
            "a registry: put its source on PYTHONPATH, or let its own server edit "
            f"(editor=http_{config.model}); see docs/diffusion-editors.md"
        )

"""Tiny weights of each model, saved once, and editors that read them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_pipelines import save_tiny

from thinkedit.actors.diffusion.editor import DiffusersEditor
from thinkedit.actors.diffusion.options import DiffusersConfig

Folder = Callable[[str], Path]
MakeConfig = Callable[..., DiffusersConfig]
MakeEditor = Callable[..., DiffusersEditor]

# As small as works. In float32, so that equality means equal pixels.
QUICK: dict[str, Any] = dict(device="cpu", dtype="float32", steps=2, area=64 * 64)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a model's tiny weights; not to be changed."""
    root, saved = tmp_path_factory.mktemp("tiny"), {}

    def find(model: str) -> Path:
        if model not in saved:
            saved[model] = save_tiny(model, root)
        return saved[model]

    return find


@pytest.fixture(scope="session")
def config(folder: Folder) -> MakeConfig:
    def make(model: str, **options: Any) -> DiffusersConfig:
        return DiffusersConfig(model=model, **{"weights": str(folder(model)), **QUICK, **options})

    return make


@pytest.fixture(scope="session")
def editor(config: MakeConfig) -> MakeEditor:
    def make(model: str, **options: Any) -> DiffusersEditor:
        return DiffusersEditor(config(model, **options))

    return make

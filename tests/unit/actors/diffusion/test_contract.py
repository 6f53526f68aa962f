"""Every model of the table, as the real pipeline of diffusers on tiny weights, passes the contract kit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from thinkedit.envs.editors.base import Editor
from thinkedit.testing import EditorContract
from thinkedit.types import RGB


class Diffusers(EditorContract):
    model: str

    @pytest.fixture(autouse=True)
    def _tools(self, editor: Any, folder: Any, tmp_path: Path) -> Iterator[None]:
        self._editor, self._folder, self._tmp_path = editor, folder, tmp_path
        self._made: list[Editor] = []
        yield
        for one in self._made:
            one.close()

    def make(self, **options: Any) -> Editor:
        self._made.append(self._editor(self.model, **options))
        return self._made[-1]

    def source(self) -> RGB:
        return np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8)


class TestFluxKontext(Diffusers):
    model = "flux_kontext"

    def malformed(self) -> Iterator[Editor]:
        broken = self._tmp_path / "broken"
        for path in self._folder(self.model).rglob("*"):
            if path.is_file():
                copy = broken / path.relative_to(self._folder(self.model))
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        weights = broken / "vae/diffusion_pytorch_model.safetensors"
        tensors = load_file(weights)
        tensors["decoder.conv_out.bias"] = torch.full_like(tensors["decoder.conv_out.bias"], torch.nan)
        save_file(tensors, weights)
        yield self.make(weights=str(broken))


class TestQwenImageEdit(Diffusers):
    model = "qwen_image_edit"


class TestQwenImageEditPlus(Diffusers):
    model = "qwen_image_edit_plus"


class TestFlux2Klein(Diffusers):
    model = "flux2_klein"


class TestLongCat(Diffusers):
    model = "longcat"


class TestInstructPix2Pix(Diffusers):
    model = "instruct_pix2pix"

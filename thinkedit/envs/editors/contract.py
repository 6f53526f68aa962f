"""What every editor promises, as tests: a plug-in's test class inherits `EditorContract`. Needs pytest."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod

import numpy as np
import pytest

from thinkedit.envs.editors.base import Editor, EditRequest
from thinkedit.types import RGB

PROMPTS = (
    "paint the red star blue",
    "",
    "do nothing",
    "把红色的星星涂成蓝色 🎨",
    "\u202ereversed\x00 and a lone surrogate \ud800",
    "very " * 500 + "long",
)


class EditorContract(ABC):
    @abstractmethod
    def make(self) -> Editor:
        """A fresh editor."""

    @abstractmethod
    def source(self) -> RGB:
        """A picture it can edit."""

    @pytest.mark.parametrize("prompt", PROMPTS)
    def test_any_text_gives_an_image_of_the_same_size(self, prompt: str) -> None:
        image = self.make().edit(self.source(), prompt, seed=0)
        assert image.dtype == np.uint8
        assert image.shape == self.source().shape

    def test_the_source_survives_and_the_result_is_not_a_view_of_it(self) -> None:
        source = self.source()
        kept = source.copy()
        image = self.make().edit(source, "do nothing", seed=1)
        image[:] = 0
        assert np.array_equal(source, kept)

    def test_a_result_belongs_to_the_caller(self) -> None:
        editor = self.make()
        first = editor.edit(self.source(), PROMPTS[0], seed=2)
        kept = first.copy()
        first[:] = 0
        assert (
            np.array_equal(editor.edit(self.source(), PROMPTS[0], seed=2), kept) or not editor.deterministic
        )

    def test_a_deterministic_editor_repeats_itself_in_a_new_instance(self) -> None:
        one, two = self.make(), self.make()
        if not one.deterministic:
            pytest.skip("declares itself not deterministic")
        for seed in range(5):
            first = one.edit(self.source(), PROMPTS[0], seed=seed)
            assert np.array_equal(first, two.edit(self.source(), PROMPTS[0], seed=seed))

    def test_a_batch_gives_what_single_calls_give(self) -> None:
        editor = self.make()
        requests = [EditRequest(self.source(), PROMPTS[0], seed) for seed in (0, 1, 0)]
        together = asyncio.run(editor.edit_many(requests))
        assert len(together) == 3
        for request, image in zip(requests, together, strict=True):
            assert isinstance(image, np.ndarray)
            if editor.deterministic:
                assert np.array_equal(image, editor.edit(request.source, request.prompt, seed=request.seed))

    def test_name_revision_and_settings_can_be_part_of_a_key(self) -> None:
        editor = self.make()
        assert editor.name
        assert editor.revision
        assert json.loads(json.dumps(dict(editor.settings()))) == dict(editor.settings())

    def test_it_may_be_closed_twice(self) -> None:
        editor = self.make()
        editor.close()
        editor.close()

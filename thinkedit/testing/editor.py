"""What every editor promises."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from thinkedit.envs.editors.base import Editor, EditRequest
from thinkedit.errors import EditorError, ServiceError, ServiceTimeout
from thinkedit.types import RGB

PROMPTS = (
    "paint the red star blue",
    "",
    "do nothing",
    "把红色的星星涂成蓝色 🎨",
    "\u202ereversed\x00 and a lone surrogate \ud800",
    "very " * 500 + "long",
)
SEEDS = (0, 1, 2**31 - 1)
INLINE_S = 0.05  # far above the millisecond that `inline` allows, for a busy machine
PATIENCE_S = 30.0

Ask = Callable[[Editor, RGB, str], RGB]


def _blocking(editor: Editor, source: RGB, prompt: str) -> RGB:
    return editor.edit(source, prompt, seed=0)


def _async(editor: Editor, source: RGB, prompt: str) -> RGB:
    return asyncio.run(editor.edit_async(source, prompt, seed=0))


def _batch(editor: Editor, source: RGB, prompt: str) -> RGB:
    return _images(editor, [EditRequest(source, prompt, 0)])[0]


WAYS = pytest.mark.parametrize("ask", [_blocking, _async, _batch])


class EditorContract(ABC):
    """Inherit it, and say how the editor is made and what it can edit.

    An editor with a backend also overrides `slow` and `malformed`; the tests that need them are
    skipped otherwise.
    """

    @abstractmethod
    def make(self) -> Editor:
        """A fresh editor, in the same configuration each time."""

    @abstractmethod
    def source(self) -> RGB:
        """A picture that it can edit; a new array each time."""

    def slow(self) -> Editor:
        """One whose backend never answers, and whose own deadline is a second or less."""
        pytest.skip("has no backend that could be slow: `slow` is not overridden")

    def malformed(self) -> Iterable[Editor]:
        """One for each way in which its backend may answer with something that is no edit."""
        pytest.skip("has no backend that could answer badly: `malformed` is not overridden")

    # --- the picture -----------------------------------------------------------------------

    @pytest.mark.parametrize("prompt", PROMPTS)
    def test_any_text_gives_an_image_of_the_same_size(self, prompt: str) -> None:
        image = self.make().edit(self.source(), prompt, seed=0)
        assert image.dtype == np.uint8
        assert image.shape == self.source().shape

    @WAYS
    def test_the_source_may_be_read_only_and_survives(self, ask: Ask) -> None:
        source = self.source()
        source.setflags(write=False)
        for prompt in PROMPTS[:3]:
            ask(self.make(), source, prompt)
            np.testing.assert_array_equal(source, self.source())

    @WAYS
    def test_a_result_belongs_to_the_caller(self, ask: Ask) -> None:
        editor, source = self.make(), self.source()
        for prompt in ("do nothing", PROMPTS[0]):
            first = ask(editor, source, prompt)
            kept = first.copy()
            first[:] = 0
            np.testing.assert_array_equal(source, self.source())
            again = ask(editor, source, prompt)
            assert np.array_equal(again, kept) or not editor.deterministic

    # --- the seed --------------------------------------------------------------------------

    def test_a_deterministic_editor_repeats_itself_in_a_new_instance(self) -> None:
        one, two = self.make(), self.make()
        if not one.deterministic:
            pytest.skip("declares itself not deterministic")
        for seed in range(5):
            first = one.edit(self.source(), PROMPTS[0], seed=seed)
            np.testing.assert_array_equal(first, two.edit(self.source(), PROMPTS[0], seed=seed))

    @pytest.mark.parametrize("seed", SEEDS)
    def test_every_seed_that_a_run_may_draw_is_taken(self, seed: int) -> None:
        assert self.make().edit(self.source(), PROMPTS[0], seed=seed).shape == self.source().shape

    # --- many ------------------------------------------------------------------------------

    @pytest.mark.parametrize("seeds", [(), (0,), (0, 1, 0)])
    def test_a_batch_gives_what_single_calls_give(self, seeds: Sequence[int]) -> None:
        editor = self.make()
        requests = [EditRequest(self.source(), PROMPTS[0], seed) for seed in seeds]
        images = _images(editor, requests)
        assert len(images) == len(requests)
        for request, image in zip(requests, images, strict=True):
            alone = editor.edit(request.source, request.prompt, seed=request.seed)
            assert image.shape == alone.shape
            assert np.array_equal(image, alone) or not editor.deterministic

    def test_threads_that_ask_at_once_get_what_they_would_get_alone(self) -> None:
        editor = self.make()
        with ThreadPoolExecutor(4) as threads:
            images = list(
                threads.map(lambda seed: editor.edit(self.source(), PROMPTS[0], seed=seed), range(4))
            )
        for seed, image in enumerate(images):
            alone = editor.edit(self.source(), PROMPTS[0], seed=seed)
            assert np.array_equal(image, alone) or not editor.deterministic

    def test_one_instance_serves_one_event_loop_after_another(self) -> None:
        editor = self.make()
        for _ in range(2):
            assert _async(editor, self.source(), PROMPTS[0]).shape == self.source().shape

    # --- time and failure ------------------------------------------------------------------

    def test_a_caller_that_gives_up_leaves_it_usable(self) -> None:
        editor = self.make()

        async def impatient() -> RGB:
            edit = asyncio.create_task(editor.edit_async(self.source(), PROMPTS[0], seed=0))
            await asyncio.sleep(0)
            edit.cancel()
            await asyncio.wait([edit], timeout=PATIENCE_S)
            assert edit.done(), "a cancelled edit goes on"
            return await editor.edit_async(self.source(), PROMPTS[0], seed=0)

        assert asyncio.run(impatient()).shape == self.source().shape

    def test_an_inline_editor_is_quick(self) -> None:
        editor, took = self.make(), []
        if not editor.inline:
            pytest.skip("runs in a thread, so that it may take its time")
        for seed in range(5):
            began = time.perf_counter()
            editor.edit(self.source(), PROMPTS[0], seed=seed)
            took.append(time.perf_counter() - began)
        assert min(took) < INLINE_S, "inline = True holds up every other episode of the process"

    @WAYS
    def test_silence_is_a_timeout(self, ask: Ask) -> None:
        editor, began = self.slow(), time.monotonic()
        with pytest.raises(ServiceTimeout):
            ask(editor, self.source(), PROMPTS[0])
        assert time.monotonic() - began < PATIENCE_S
        editor.close()

    @WAYS
    def test_an_answer_that_is_no_edit_is_an_error_and_no_image(self, ask: Ask) -> None:
        for editor in self.malformed():
            with pytest.raises(EditorError):
                ask(editor, self.source(), PROMPTS[0])
            editor.close()

    # --- identity and end ------------------------------------------------------------------

    def test_name_revision_and_settings_can_be_part_of_a_key(self) -> None:
        editor = self.make()
        assert editor.name
        assert editor.revision
        assert json.loads(json.dumps(dict(editor.settings()))) == dict(editor.settings())
        assert dict(self.make().settings()) == dict(editor.settings())

    def test_it_may_be_closed_twice_before_and_after_use(self) -> None:
        editor = self.make()
        editor.close()
        editor.close()
        editor = self.make()
        editor.edit(self.source(), PROMPTS[0], seed=0)
        editor.close()
        editor.close()


def _images(editor: Editor, requests: Sequence[EditRequest]) -> list[RGB]:
    """A batch's images; its first failure is raised."""
    images = []
    for result in asyncio.run(editor.edit_many(requests)):
        if isinstance(result, Exception):
            assert isinstance(result, ServiceError), f"a failure without a type of ours: {result!r}"
            raise result
        images.append(result)
    return images

"""The tiny Qwen3-VL folder: small, ordinary, and a function of corpus and seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

from thinkedit.learner.policy import shipped, tiny
from thinkedit.learner.policy import tokenizer as tokens

CORPUS = ["big red star at top-left", "describe both pictures"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_tiny(tmp_path_factory.mktemp("tiny") / "a", CORPUS, seed=3)


def prompt_for(processor: object, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for _ in range(2)]
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "describe both pictures"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return dict(processor(text=[text], images=pictures, return_tensors="pt"))


def test_equal_corpus_and_seed_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    again = tiny.build_tiny(tmp_path, CORPUS, seed=3)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert [n for n in names if (folder / n).read_bytes() != (again / n).read_bytes()] == []


def test_another_seed_gives_other_weights(folder: Path, tmp_path: Path) -> None:
    other = tiny.build_tiny(tmp_path, CORPUS, seed=4)
    assert (folder / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    tiny.build_model(tokens.build_tokenizer(CORPUS), seed=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("path", ["built", "shipped"])
def test_vocabulary_is_the_tokenizers(path: str, folder: Path) -> None:
    at = folder if path == "built" else shipped.BASE
    processor = AutoProcessor.from_pretrained(at)
    model = Qwen3VLForConditionalGeneration.from_pretrained(at)
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == len(processor.tokenizer)
    assert model.lm_head.weight.shape[0] == len(processor.tokenizer)
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("size", "visual_tokens"),
    [((96, 96), 9), ((64, 160), 10), ((512, 512), 256), ((700, 350), 242), ((20, 40), 1)],
)
def test_a_picture_is_one_token_for_every_32_by_32_pixels(
    folder: Path, size: tuple[int, int], visual_tokens: int
) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    inputs = prompt_for(processor, size)
    image = processor.tokenizer.convert_tokens_to_ids(tokens.IMAGE)
    assert int((inputs["input_ids"] == image).sum()) == 2 * visual_tokens
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder)
    assert bool(torch.isfinite(model(**inputs).logits).all())


def test_shipped_weights_are_small_and_float32() -> None:
    weights = shipped.BASE / "model.safetensors"
    assert weights.stat().st_size <= 5_000_000
    model = Qwen3VLForConditionalGeneration.from_pretrained(shipped.BASE)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_shipped_base_is_copied_whole(tmp_path: Path) -> None:
    out = shipped.copy_base(tmp_path)
    assert {path.name for path in out.iterdir()} == {path.name for path in shipped.BASE.iterdir()}

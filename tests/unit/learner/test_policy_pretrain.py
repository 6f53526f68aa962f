"""Pretraining's short cuts equal the Hugging Face model and processor, and it learns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from thinkedit.data import looking
from thinkedit.learner.policy import pretrain, shipped, tiny
from thinkedit.learner.policy.batches import IGNORE, Packer, patches
from thinkedit.learner.policy.samples import LookSample
from thinkedit.learner.policy.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer(["describe both pictures big red star at top-left"])
PROCESSOR = tiny.build_processor(TOKENIZER)
SAMPLES = list(itertools.islice(looking.looking(5), 6))


@pytest.fixture
def model() -> torch.nn.Module:
    return tiny.build_model(TOKENIZER, 0).eval()


def through_processor(sample: LookSample) -> dict[str, torch.Tensor]:
    messages = []
    for turn, (question, answer) in enumerate(sample.rounds):
        images = [{"type": "image"}] * (2 if turn == 0 else 0)
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": answer})
    text = PROCESSOR.apply_chat_template(messages)
    pictures = [Image.fromarray(picture) for picture in sample.pictures]
    return dict(PROCESSOR(text=[text], images=pictures, return_tensors="pt"))


def test_patches_are_the_image_processors() -> None:
    pictures = [picture for sample in SAMPLES for picture in sample.pictures]
    images = [Image.fromarray(picture) for picture in pictures]
    expected = PROCESSOR.image_processor(images, return_tensors="pt")["pixel_values"]
    cut = patches(torch.from_numpy(np.stack(pictures)))
    torch.testing.assert_close(cut, expected, atol=1e-6, rtol=0)


def test_rows_are_the_chat_templates(model: torch.nn.Module) -> None:
    batch = Packer(model, PROCESSOR).training(SAMPLES)
    for row, mask, sample in zip(
        batch.inputs["input_ids"], batch.inputs["attention_mask"], SAMPLES, strict=True
    ):
        expected = through_processor(sample)["input_ids"][0]
        # the template's newline after the last turn is never sampled, so rows end before it
        assert row[mask.bool()].tolist() == expected[:-1].tolist()


def test_only_answers_and_their_ends_are_learned(model: torch.nn.Module) -> None:
    batch = Packer(model, PROCESSOR).training(SAMPLES)
    for labels, sample in zip(batch.labels, SAMPLES, strict=True):
        told = TOKENIZER.decode(labels[labels != IGNORE])
        assert told == "".join(answer + "<|im_end|>" for _, answer in sample.rounds)


def test_packed_batch_in_batched_vision_gives_the_plain_models_logits(model: torch.nn.Module) -> None:
    batch = Packer(model, PROCESSOR).training(SAMPLES)
    with torch.no_grad(), pretrain.batched_vision(model):
        packed = model(**batch.inputs).logits
    for k, sample in enumerate(SAMPLES):
        with torch.no_grad():
            plain = model(**through_processor(sample)).logits[0, :-1]
        torch.testing.assert_close(packed[k, : len(plain)], plain, atol=1e-5, rtol=0)


def test_loss_is_the_models_own(model: torch.nn.Module) -> None:
    batch = Packer(model, PROCESSOR).training(SAMPLES)
    with torch.no_grad():
        own = model(**batch.inputs, labels=batch.labels).loss
        torch.testing.assert_close(pretrain.answer_loss(model, batch), own, atol=1e-5, rtol=0)


def test_batched_vision_leaves_the_model_as_it_was(model: torch.nn.Module) -> None:
    with pretrain.batched_vision(model):
        pass
    assert "forward" not in vars(model.model.visual.patch_embed)
    assert all("forward" not in vars(block.attn) for block in model.model.visual.blocks)


def test_training_lowers_the_loss_and_keeps_the_parameters_names(model: torch.nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    rows: list[dict[str, float]] = []
    config = pretrain.PretrainConfig(steps=20, batch_size=8, warmup_steps=5, cell_kinds=looking.KINDS)
    pretrain.pretrain(model, PROCESSOR, looking.looking, config, rows.append)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[-1]["cell_loss"] < rows[0]["cell_loss"]
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.parametrize("workers", [0, 2])
def test_equal_seeds_give_equal_training(workers: int) -> None:
    losses = []
    for _ in range(2):
        rows: list[dict[str, float]] = []
        config = pretrain.PretrainConfig(steps=3, batch_size=4, cell_kinds=looking.KINDS, workers=workers)
        pretrain.pretrain(tiny.build_model(TOKENIZER, 0), PROCESSOR, looking.looking, config, rows.append)
        losses.append([row["loss"] for row in rows])
    assert losses[0] == losses[1]


def test_answers_to_a_batch_are_the_answers_to_each() -> None:
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    base = Qwen3VLForConditionalGeneration.from_pretrained(shipped.BASE)
    processor = AutoProcessor.from_pretrained(shipped.BASE)
    samples = list(itertools.islice(looking.grounding_test(1), 4))
    alone = [pretrain.answers(base, processor, [sample])[0] for sample in samples]
    assert pretrain.answers(base, processor, samples) == alone

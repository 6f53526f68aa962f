"""A tiny Qwen3-VL in an ordinary Hugging Face folder: the same code path as Qwen3-VL-8B, on a CPU."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from thinkedit.learner.policy import tokenizer as tokens

PATCH, MERGE = 16, 2
CELL = PATCH * MERGE
"""Pixels along one side of a visual token: a 96 x 96 picture is 3 x 3 = 9 of them."""

POSITION_STD = 0.3  # Qwen's 0.02 drowns in the patch embedding, and positions are then learned last


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """Width 128, 3 layers; vision 96 x 1. About 1.2M parameters with 430 tokens.

    Embedding and output head are not tied: at this size that costs 0.2 MB, and a tied head is
    the one tensor that vLLM's CPU backend keeps as a packed copy through a weight update.
    """
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokens.SPECIAL}
    return Qwen3VLConfig(
        text_config=dict(
            architectures=["Qwen3ForCausalLM"],  # vLLM looks up the language half by it
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=8192,
            rope_parameters=dict(
                rope_type="default", rope_theta=10000.0, mrope_section=[6, 5, 5], mrope_interleaved=True
            ),
            bos_token_id=None,
            eos_token_id=ids[tokens.TURN_END],
            pad_token_id=ids[tokens.END_OF_TEXT],
            tie_word_embeddings=False,
        ),
        vision_config=dict(
            depth=1,
            hidden_size=96,
            intermediate_size=192,
            num_heads=4,
            patch_size=PATCH,
            spatial_merge_size=MERGE,
            temporal_patch_size=2,
            out_hidden_size=128,
            num_position_embeddings=36,  # 6 x 6 patches: exact for 96 x 96, interpolated otherwise
            deepstack_visual_indexes=[0],
        ),
        image_token_id=ids[tokens.IMAGE],
        video_token_id=ids[tokens.VIDEO],
        vision_start_token_id=ids[tokens.VISION_START],
        vision_end_token_id=ids[tokens.VISION_END],
        tie_word_embeddings=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3VLForConditionalGeneration:
    """The untrained model in float32; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(build_config(tokenizer)).float()
        torch.nn.init.normal_(model.model.visual.pos_embed.weight, std=POSITION_STD)
    model.generation_config = GenerationConfig(
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(tokens.TURN_END),
        pad_token_id=tokenizer.convert_tokens_to_ids(tokens.END_OF_TEXT),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
    )
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """Tokenizer, image and video processor in one. Pictures of 32 x 32 to 512 x 512 pixels keep their
    size, rounded to multiples of 32; smaller and larger ones are scaled to that range."""
    sizes = {"shortest_edge": CELL**2, "longest_edge": 512**2}  # Qwen's names; both are areas
    shape = dict(patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2)
    scale = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=sizes, **shape, **scale),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=sizes, **shape, **scale),
        chat_template=tokens.CHAT_TEMPLATE,
    )


def build_tiny(out_dir: str | Path, corpus: Iterable[str], seed: int) -> Path:
    """Writes an untrained tiny Qwen3-VL whose tokenizer knows the corpus's words; returns the folder.

    The folder is byte for byte a function of corpus and seed.
    """
    out = Path(out_dir)
    tokenizer = tokens.build_tokenizer(corpus)
    save(build_model(tokenizer, seed), build_processor(tokenizer), out)
    return out


def save(model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, out: Path) -> None:
    """Model (float32 safetensors) and processor in the layout that transformers and vLLM load."""
    model.save_pretrained(out)
    processor.save_pretrained(out)

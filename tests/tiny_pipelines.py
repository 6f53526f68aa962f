"""Real editing pipelines of diffusers with tiny random weights, saved as the hub's folders are.

Their edits are noise; but classes, folders, call arguments and sizes are the ones of the full models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

import thinkedit

WORDS = Path(thinkedit.__file__).parent / "learner/policy/base"  # Qwen's control tokens, any text in bytes


def flux_kontext() -> Any:
    words = tokenizer(77)
    return diffusers.FluxKontextPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(channels=1),
        text_encoder=clip(words),
        tokenizer=words,
        text_encoder_2=transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=len(words), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=2
            )
        ),
        tokenizer_2=tokenizer(512),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ),
    )


def qwen(pipeline: Any) -> Any:
    words = tokenizer(8192)
    channels = 4
    return pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            base_shift=0.5,
            max_shift=0.9,
            use_dynamic_shifting=True,
            time_shift_type="exponential",
            shift_terminal=0.02,
        ),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=channels,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * channels,
            latents_std=[1.0] * channels,
        ),
        text_encoder=qwen_vl(words),
        tokenizer=words,
        processor=qwen_vl_processor(words),
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=4 * channels,
            out_channels=channels,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=3,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
    )


def flux2_klein(is_distilled: bool = False) -> Any:
    words = tokenizer(8192)
    return diffusers.Flux2KleinPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4,) * 4,
            layers_per_block=1,
            latent_channels=1,
            norm_num_groups=1,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        # the pipeline reads layers 9, 18 and 27
        text_encoder=transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(
                intermediate_size=16,
                hidden_size=16,
                num_hidden_layers=27,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=8,
                vocab_size=len(words),
            )
        ),
        tokenizer=words,
        transformer=diffusers.Flux2Transformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        is_distilled=is_distilled,
    )


def longcat() -> Any:
    words = tokenizer(8192)
    return diffusers.LongCatImageEditPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(channels=16),
        text_encoder=qwen_vl(words),
        tokenizer=words,
        text_processor=qwen_vl_processor(words),
        transformer=diffusers.LongCatImageTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def instruct_pix2pix() -> Any:
    words = tokenizer(77)
    return diffusers.StableDiffusionInstructPix2PixPipeline(
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=32,
            in_channels=8,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            norm_num_groups=8,
        ),
        vae=autoencoder(channels=4),
        text_encoder=clip(words),
        tokenizer=words,
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tokenizer(length: int) -> Any:
    return transformers.AutoTokenizer.from_pretrained(WORDS, model_max_length=length)


def autoencoder(*, channels: int) -> Any:
    """Eight pixels a side to one, as the full ones."""
    return diffusers.AutoencoderKL(
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )


def clip(words: Any) -> Any:
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            hidden_size=32,
            intermediate_size=37,
            num_attention_heads=4,
            num_hidden_layers=2,
            projection_dim=32,
            vocab_size=len(words),
            pad_token_id=words.pad_token_id,
            eos_token_id=words.eos_token_id,
        )
    )


def qwen_vl(words: Any) -> Any:
    ids = {
        f"{name}_token_id": words.convert_tokens_to_ids(token)
        for name, token in {
            "image": "<|image_pad|>",
            "video": "<|video_pad|>",
            "vision_start": "<|vision_start|>",
            "vision_end": "<|vision_end|>",
        }.items()
    }
    return transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(
            text_config=dict(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                vocab_size=len(words),
                rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[1, 1, 2]),
                max_position_embeddings=8192,
            ),
            vision_config=dict(
                depth=2, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16
            ),
            **ids,
        )
    )


def qwen_vl_processor(words: Any) -> Any:
    return transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112}),
        words,
        transformers.Qwen2VLVideoProcessor(),
        chat_template=words.chat_template,
    )


TINY: Mapping[str, Callable[[], Any]] = {
    "flux_kontext": flux_kontext,
    "qwen_image_edit": lambda: qwen(diffusers.QwenImageEditPipeline),
    "qwen_image_edit_plus": lambda: qwen(diffusers.QwenImageEditPlusPipeline),
    "flux2_klein": flux2_klein,
    "longcat": longcat,
    "instruct_pix2pix": instruct_pix2pix,
}


def tiny(model: str) -> Any:
    """The pipeline of a row of thinkedit's table of models; the same weights each time."""
    torch.manual_seed(0)
    return TINY[model]()


def save_tiny(model: str, folder: Path) -> Path:
    """The same in a folder of its own below `folder`."""
    tiny(model).save_pretrained(folder / model)
    return folder / model

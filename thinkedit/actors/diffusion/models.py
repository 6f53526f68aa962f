"""What each model is and what it is asked with, if the config says nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

FULL_AREA = 1024 * 1024  # pixels


class Sizing(StrEnum):
    """How a pipeline is told the size to work at."""

    ARGUMENTS = "arguments"  # height and width
    PICTURE = "picture"  # it takes the picture's own
    FIXED = "fixed"  # it works it out from the picture's shape and an area written in its code


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A guidance scale: the name of the pipeline's argument, and its default."""

    argument: str
    default: float


def _table(**entries: Any) -> Mapping[str, Any]:
    return MappingProxyType(entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One row of the table.

    pipeline: class in diffusers; with a colon, "module:class" in the model's own package.
    weights: repository at the hub.
    negative_prompt: its default; None where the pipeline takes none. It counts only under
        classifier-free guidance, that is with a guidance scale above 1.
    area: pixels it works at, whatever the picture's size.
    multiple: each side of the working size is one of it.
    denoiser: the component that runs once a step or more.
    quantized: components whose linear layers `quantization` applies to.
    schedulers: classes in diffusers that can replace its own, each with what it has to be told.
    lora: whether the pipeline can load adapters.
    picture: the argument that takes the picture.
    in_list: it wants a list with the one picture in it.
    fixed: further arguments that never change.
    own: components whose class is neither of diffusers nor transformers, as "module:class".
    """

    pipeline: str
    weights: str
    steps: int
    guidance: Scale
    image_guidance: Scale | None = None
    negative_prompt: str | None = None
    sizing: Sizing
    area: int = FULL_AREA
    multiple: int = 16
    denoiser: str = "transformer"
    quantized: tuple[str, ...] = ("transformer", "text_encoder")
    schedulers: Mapping[str, Mapping[str, Any]] = field(default_factory=_table)
    lora: bool = True
    picture: str = "image"
    in_list: bool = False
    fixed: Mapping[str, Any] = field(default_factory=_table)
    own: Mapping[str, str] = field(default_factory=_table)


# Those that take the pipelines' own sigmas; any other solver would have to ignore them. UniPC was made
# for noise prediction and has to be told that these models predict a flow.
_FLOW = _table(
    FlowMatchEulerDiscreteScheduler=_table(),
    FlowMatchLCMScheduler=_table(),
    UniPCMultistepScheduler=_table(use_flow_sigmas=True, prediction_type="flow_prediction"),
)
_NOISE = _table(
    **dict.fromkeys(
        (
            "DDIMScheduler",
            "DDPMScheduler",
            "DEISMultistepScheduler",
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "EulerAncestralDiscreteScheduler",
            "EulerDiscreteScheduler",
            "HeunDiscreteScheduler",
            "KDPM2AncestralDiscreteScheduler",
            "KDPM2DiscreteScheduler",
            "LCMScheduler",
            "LMSDiscreteScheduler",
            "PNDMScheduler",
            "UniPCMultistepScheduler",
        ),
        _table(),
    )
)

MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "flux_kontext": Model(
            pipeline="FluxKontextPipeline",
            weights="black-forest-labs/FLUX.1-Kontext-dev",
            steps=28,
            guidance=Scale(argument="guidance_scale", default=2.5),
            sizing=Sizing.ARGUMENTS,
            quantized=("transformer", "text_encoder_2"),  # the other text encoder is small
            schedulers=_FLOW,
            fixed=_table(_auto_resize=False),  # sizes are ours
        ),
        "qwen_image_edit": Model(
            pipeline="QwenImageEditPipeline",
            weights="Qwen/Qwen-Image-Edit",
            steps=50,
            guidance=Scale(argument="true_cfg_scale", default=5.0),
            negative_prompt=" ",
            sizing=Sizing.FIXED,
            multiple=32,
            schedulers=_FLOW,
        ),
        "qwen_image_edit_plus": Model(
            pipeline="QwenImageEditPlusPipeline",
            weights="Qwen/Qwen-Image-Edit-2509",
            steps=40,
            guidance=Scale(argument="true_cfg_scale", default=4.0),
            negative_prompt=" ",
            sizing=Sizing.FIXED,
            multiple=32,
            schedulers=_FLOW,
        ),
        "flux2_klein": Model(
            pipeline="Flux2KleinPipeline",
            weights="black-forest-labs/FLUX.2-klein-4B",
            steps=4,
            guidance=Scale(argument="guidance_scale", default=1.0),
            sizing=Sizing.ARGUMENTS,
            schedulers=_FLOW,
        ),
        "longcat": Model(
            pipeline="LongCatImageEditPipeline",
            weights="meituan-longcat/LongCat-Image-Edit",
            steps=50,
            guidance=Scale(argument="guidance_scale", default=4.5),
            negative_prompt="",
            sizing=Sizing.FIXED,
            schedulers=_FLOW,
            lora=False,
        ),
        "instruct_pix2pix": Model(
            pipeline="StableDiffusionInstructPix2PixPipeline",
            weights="timbrooks/instruct-pix2pix",
            steps=100,
            guidance=Scale(argument="guidance_scale", default=7.5),
            image_guidance=Scale(argument="image_guidance_scale", default=1.5),
            negative_prompt="",
            sizing=Sizing.PICTURE,
            area=512 * 512,
            multiple=64,
            denoiser="unet",
            quantized=("unet",),
            schedulers=_NOISE,
        ),
        "omnigen2": Model(
            pipeline="omnigen2.pipelines.omnigen2.pipeline_omnigen2:OmniGen2Pipeline",
            weights="OmniGen2/OmniGen2",
            steps=50,
            guidance=Scale(argument="text_guidance_scale", default=5.0),
            image_guidance=Scale(argument="image_guidance_scale", default=1.5),
            negative_prompt="",
            sizing=Sizing.PICTURE,
            quantized=("transformer", "mllm"),
            picture="input_images",
            in_list=True,
            # Its table of positions has 1024 rows, which the prompt shares with a picture of up to 64 patches
            # a side: beyond that it falls over instead of cutting.
            fixed=_table(max_sequence_length=896),
            own=_table(
                transformer="omnigen2.models.transformers.transformer_omnigen2:OmniGen2Transformer2DModel",
                scheduler="omnigen2.schedulers.scheduling_flow_match_euler_discrete:FlowMatchEulerDiscreteScheduler",
            ),
        ),
    }
)

"""The editor as a diffusers pipeline: `from_pretrained`, a call, `save_pretrained`."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerFast

from thinkedit.actors.small_diffusion.network import EditNetwork
from thinkedit.envs.world.sprites import SIDE

STEPS = 4


class SmallDiffusionPipeline(DiffusionPipeline):  # type: ignore[misc]  # diffusers is untyped
    """Edits pictures of 96 x 96 as told.

    The network predicts the clean picture; the scheduler is a plain flow-matching one, so that the
    velocity it steps along is the line from that picture to the present one.
    """

    model_cpu_offload_seq = "network"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        network: EditNetwork,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(tokenizer=tokenizer, network=network, scheduler=scheduler)
        self.image_processor = VaeImageProcessor(do_resize=False, vae_scale_factor=1)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image],
        prompt: str | Sequence[str],
        num_inference_steps: int = STEPS,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> Any:
        """An `ImagePipelineOutput` with an edit of each image.

        Args:
            image, prompt: one of each, or B of each. Images are RGB, 96 x 96.
            generator: of the noise that editing starts from; one, or one for each image.
            output_type: "pil", "np" or "pt", as in any pipeline of diffusers.

        Raises:
            ValueError: another size, or unequal numbers of images and prompts.
        """
        images = [image] if isinstance(image, Image.Image) else list(image)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if len(images) != len(prompts):
            raise ValueError(f"as many prompts as images are needed, got {len(prompts)} and {len(images)}")
        for one in images:
            if one.size != (SIDE, SIDE):
                raise ValueError(f"this pipeline edits pictures of {SIDE} x {SIDE}, got {one.size}")
        device, dtype = self._execution_device, self.network.dtype
        source = self.image_processor.preprocess(images).to(device, dtype)
        words = self.tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(device)
        reading = self.network.read(words.input_ids, words.attention_mask)

        scheduler = copy(self.scheduler)  # it counts its steps, and threads may edit at once
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / num_inference_steps, num_inference_steps))
        picture = randn_tensor(source.shape, generator=generator, device=device, dtype=dtype)
        for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
            clean = self.network(picture, source, sigma.to(device, dtype).expand(len(source)), reading)
            velocity = (picture - clean) / sigma
            picture = scheduler.step(velocity, timestep, picture, return_dict=False)[0]
        edited = self.image_processor.postprocess(picture, output_type=output_type)
        return ImagePipelineOutput(images=edited)


def build(tokenizer: PreTrainedTokenizerFast, *, seed: int, shift: float = 12.0) -> SmallDiffusionPipeline:
    """An untrained pipeline for prompts of the tokenizer's words.

    Args:
        seed: of the weights; torch's own generator is left as it was.
        shift: how far noise levels lean towards 1, in training as in sampling. A picture under so
            much noise that little of it shows is where a network has to go by the prompt.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = EditNetwork(len(tokenizer))
    return SmallDiffusionPipeline(tokenizer, network.eval(), FlowMatchEulerDiscreteScheduler(shift=shift))


def save(pipeline: SmallDiffusionPipeline, folder: Path) -> None:
    """Writes the pipeline with its weights in float16, to which it is turned."""
    nn.Module.half(pipeline.network)  # diffusers' own warns of modules to keep in float32, even of none
    pipeline.save_pretrained(folder)


def load(folder: Path) -> SmallDiffusionPipeline:
    """A saved pipeline in float32, whatever the precision of its weights on disk."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # three small files
    try:
        pipeline: SmallDiffusionPipeline = SmallDiffusionPipeline.from_pretrained(
            folder, local_files_only=True
        )
    finally:
        if shown:
            logging.enable_progress_bar()
    return pipeline

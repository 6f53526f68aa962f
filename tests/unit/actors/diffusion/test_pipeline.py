"""The real pipelines of diffusers on tiny weights: what is saved, reloaded and edited with."""

import inspect
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_pipelines import TINY, tiny

from thinkedit.actors.diffusion.models import MODELS
from thinkedit.actors.diffusion.options import DiffusersConfig, arguments
from thinkedit.actors.diffusion.pipeline import EditPipeline, Stopped
from thinkedit.envs.images import read_rgb
from thinkedit.errors import ConfigError, EditorError, UnknownName
from thinkedit.types import RGB

SOURCE = np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8)
PROMPT = "paint the red star blue"

MakeConfig = Callable[..., DiffusersConfig]


def edit(pipeline: EditPipeline, prompt: str = PROMPT, seed: int = 0, source: RGB = SOURCE) -> RGB:
    return pipeline.edit(source, prompt, seed, lambda: False)


def test_the_table_has_a_tiny_pipeline_for_each_model_of_diffusers() -> None:
    assert set(TINY) == {name for name, model in MODELS.items() if ":" not in model.pipeline}


@pytest.mark.parametrize("model", TINY)
class TestEach:
    def test_a_saved_pipeline_edits_as_it_did_before(
        self, model: str, config: MakeConfig, tmp_path: Path
    ) -> None:
        before = edit(EditPipeline(config(model), tiny(model)))
        assert before.std() > 5, "a blank picture would be equal to anything blank"
        loaded = EditPipeline.load(config(model))
        np.testing.assert_array_equal(edit(loaded), before)
        Image.fromarray(before).save(tmp_path / "edited.png")
        again = edit(loaded, source=read_rgb(tmp_path / "edited.png"))
        assert again.shape == SOURCE.shape
        assert not np.array_equal(again, before)

    def test_prompt_seed_steps_and_guidance_count(self, model: str, config: MakeConfig) -> None:
        pipeline = EditPipeline.load(config(model))
        edits = {
            "": edit(pipeline),
            "prompt": edit(pipeline, prompt="a wholly different wish, and longer"),
            "seed": edit(pipeline, seed=1),
            "source": edit(pipeline, source=SOURCE[::-1]),
            "steps": edit(EditPipeline.load(config(model, steps=3))),
            "guidance": edit(EditPipeline.load(config(model, guidance=9.0))),
        }
        if MODELS[model].image_guidance is not None:
            edits["image guidance"] = edit(EditPipeline.load(config(model, image_guidance=4.0)))
        assert len({image.tobytes() for image in edits.values()}) == len(edits), sorted(edits)

    def test_a_negative_prompt_counts_where_there_is_one(self, model: str, config: MakeConfig) -> None:
        if MODELS[model].negative_prompt is None:
            with pytest.raises(ConfigError, match="takes none"):
                config(model, negative_prompt="blurred")
        else:
            asked = [config(model, guidance=9.0, negative_prompt=text) for text in ("", "x " * 40)]
            one, two = (edit(EditPipeline.load(each)) for each in asked)
            assert not np.array_equal(one, two)

    def test_it_works_at_the_area_it_is_told(self, model: str, config: MakeConfig) -> None:
        tokens: list[int] = []

        def count(_: object, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            tokens.append((named["hidden_states"] if "hidden_states" in named else positional[0]).numel())

        for area in (128 * 128, 256 * 256):
            pipeline = EditPipeline.load(config(model, area=area))
            denoiser = getattr(pipeline.pipeline, MODELS[model].denoiser)
            denoiser.register_forward_pre_hook(count, with_kwargs=True)
            edit(pipeline, source=SOURCE[:, :48])
        assert max(tokens) == 4 * min(tokens)

    def test_every_argument_of_the_table_is_the_pipelines_own(self, model: str, config: MakeConfig) -> None:
        row = MODELS[model]
        asked = {*arguments(config(model, guidance=2.0)), row.picture, "prompt", "generator", "output_type"}
        assert asked <= set(inspect.signature(getattr(diffusers, row.pipeline).__call__).parameters)

    def test_every_scheduler_of_the_table_edits(self, model: str, config: MakeConfig) -> None:
        for scheduler in MODELS[model].schedulers:
            pipeline = EditPipeline.load(config(model, scheduler=scheduler, steps=4))
            assert type(pipeline.pipeline.scheduler).__name__ == scheduler
            first = edit(pipeline)
            np.testing.assert_array_equal(edit(pipeline), first, err_msg=scheduler)

    def test_a_lora_is_fused_by_its_scale(self, model: str, config: MakeConfig, tmp_path: Path) -> None:
        if not MODELS[model].lora:
            with pytest.raises(ConfigError, match="can load none"):
                config(model, lora="a.safetensors")
            return
        file = save_lora(model, tmp_path)
        plain = edit(EditPipeline.load(config(model)))
        faint, full = (
            edit(EditPipeline.load(config(model, lora=str(file), lora_scale=scale))) for scale in (1e-6, 1.0)
        )
        assert np.abs(plain.astype(int) - faint).max() <= 1
        assert np.abs(plain.astype(int) - full).mean() > np.abs(plain.astype(int) - faint).mean()
        assert not np.array_equal(plain, full)

    @pytest.mark.parametrize("kind", ["int8", "int8_dynamic", "fp8"])
    def test_quantised_weights_edit_almost_the_same(self, model: str, kind: str, config: MakeConfig) -> None:
        pytest.importorskip("torchao")
        plain = EditPipeline.load(config(model, dtype="bfloat16"))
        quantised = EditPipeline.load(config(model, dtype="bfloat16", quantization=kind))
        kept = [getattr(quantised.pipeline, name) for name in MODELS[model].quantized]
        assert all(
            any(type(weight.data) is not torch.Tensor for weight in part.parameters()) for part in kept
        )
        off = np.abs(edit(plain).astype(int) - edit(quantised))
        assert off.mean() < 12


def save_lora(model: str, folder: Path) -> Path:
    """An adapter as its own pipeline saves it, on two layers' worth of attention."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    torch.manual_seed(1)
    pipeline, row = tiny(model), MODELS[model]
    denoiser = getattr(pipeline, row.denoiser)
    denoiser.add_adapter(
        LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v"])
    )
    state = get_peft_model_state_dict(denoiser)
    if row.denoiser == "unet":
        state = convert_state_dict_to_diffusers(state)
    pipeline.save_lora_weights(folder, **{f"{row.denoiser}_lora_layers": state})
    return folder / "pytorch_lora_weights.safetensors"


def test_a_lora_of_another_model_is_refused(config: MakeConfig, tmp_path: Path) -> None:
    file = save_lora("flux_kontext", tmp_path)
    for model in ("flux2_klein", "qwen_image_edit", "instruct_pix2pix"):
        with pytest.raises(ConfigError, match="lora"):
            EditPipeline.load(config(model, lora=str(file)))


def test_a_lora_that_covers_layers_that_are_not_there_is_refused(config: MakeConfig, tmp_path: Path) -> None:
    file = save_lora("flux_kontext", tmp_path)
    tensors = load_file(file)
    tensors |= {key.replace("blocks.0", "blocks.7"): value.clone() for key, value in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="lora"):
        EditPipeline.load(config("flux_kontext", lora=str(file)))


@pytest.mark.slow
def test_compiled_blocks_edit_the_same(config: MakeConfig) -> None:
    options: dict[str, Any] = dict(guidance=1.0)  # one shape, so one compilation
    compiled = EditPipeline.load(config("qwen_image_edit", compile="default", **options))
    blocks = compiled.pipeline.transformer.transformer_blocks
    assert all(block._compiled_call_impl is not None for block in blocks)
    plain = edit(EditPipeline.load(config("qwen_image_edit", **options)))
    assert np.abs(plain.astype(int) - edit(compiled)).max() <= 1


def test_dtype_is_the_weights_own(config: MakeConfig) -> None:
    for dtype in ("bfloat16", "float32"):
        pipeline = EditPipeline.load(config("flux_kontext", dtype=dtype)).pipeline
        parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        assert {part.dtype for part in parts} == {getattr(torch, dtype)}


def test_scheduler_options_go_on_top_of_the_saved_ones(config: MakeConfig) -> None:
    options = {"base_shift": 1.1, "shift_terminal": None}
    scheduler = EditPipeline.load(config("qwen_image_edit", scheduler_options=options)).pipeline.scheduler
    assert scheduler.config.base_shift == 1.1
    assert scheduler.config.shift_terminal is None
    assert scheduler.config.time_shift_type == "exponential"
    with pytest.raises(UnknownName) as caught:
        EditPipeline.load(config("qwen_image_edit", scheduler_options={"base_shfit": 1.1}))
    assert caught.value.nearest == "base_shift"


def test_one_step_is_refused_where_the_scheduler_would_divide_by_zero(config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="shift_terminal"):
        EditPipeline.load(config("qwen_image_edit", steps=1))
    edit(EditPipeline.load(config("qwen_image_edit", steps=1, scheduler_options={"shift_terminal": None})))


def test_distilled_weights_refuse_a_guidance_that_they_ignore(config: MakeConfig) -> None:
    pipeline = tiny("flux2_klein")
    pipeline.register_to_config(is_distilled=True)
    with pytest.raises(ConfigError, match="distilled"):
        EditPipeline(config("flux2_klein", guidance=4.0), pipeline)
    edit(EditPipeline(config("flux2_klein"), pipeline))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_told_before_anything_is_read(config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="device=cuda: 0 CUDA GPUs"):
        EditPipeline.load(config("flux_kontext", device="cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may do it")
def test_a_processor_refuses_to_multiply_in_fp8(config: MakeConfig) -> None:
    pytest.importorskip("torchao")
    with pytest.raises(ConfigError, match="int8_dynamic works everywhere"):
        EditPipeline.load(config("flux_kontext", quantization="fp8_dynamic"))


def test_the_global_generator_is_left_as_it_was(config: MakeConfig) -> None:
    pipeline = EditPipeline.load(config("flux_kontext", scheduler="FlowMatchLCMScheduler"))
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = edit(pipeline)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    np.testing.assert_array_equal(edit(pipeline), first)


def test_two_pipelines_at_once_draw_from_no_common_generator(config: MakeConfig) -> None:
    """The scheduler adds noise at each step, without being given the edit's own generator."""
    pipelines = [
        EditPipeline.load(config("flux_kontext", scheduler="FlowMatchLCMScheduler", steps=4))
        for _ in range(2)
    ]
    alone = edit(pipelines[0])
    images: list[RGB] = []
    threads = [
        threading.Thread(target=lambda p=pipeline: images.extend(edit(p) for _ in range(4)))
        for pipeline in pipelines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == 8
    for image in images:
        np.testing.assert_array_equal(image, alone)


def test_an_edit_ends_before_the_step_at_which_nobody_waits_any_more(config: MakeConfig) -> None:
    pipeline = EditPipeline.load(config("flux_kontext", steps=50))
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(0)
        return len(asked) == 3

    with pytest.raises(Stopped):
        pipeline.edit(SOURCE, PROMPT, 0, stopped)
    assert len(asked) == 3


def test_what_a_pipeline_raises_becomes_an_editor_error(config: MakeConfig) -> None:
    pipeline = EditPipeline.load(config("flux_kontext"))

    def fails(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    handle = pipeline.pipeline.vae.decoder.register_forward_pre_hook(fails)
    with pytest.raises(EditorError, match="flux_kontext: ZeroDivisionError: of all things"):
        edit(pipeline)
    handle.remove()
    edit(pipeline)


def test_a_blanked_picture_is_an_error(config: MakeConfig) -> None:
    pipeline = tiny("instruct_pix2pix")
    ready = EditPipeline(config("instruct_pix2pix"), pipeline)
    pipeline.run_safety_checker = lambda image, device, dtype: (torch.zeros_like(image), [True])
    with pytest.raises(EditorError, match="safety checker"):
        edit(ready)


@pytest.mark.parametrize("model", ["flux_kontext", "longcat", "instruct_pix2pix"])
@pytest.mark.parametrize("shape", [(8, 8), (300, 40), (33, 257)])
def test_any_size_comes_back_as_it_went(model: str, shape: tuple[int, int], config: MakeConfig) -> None:
    source = np.full((*shape, 3), 90, np.uint8)
    assert edit(EditPipeline.load(config(model)), source=source).shape == source.shape


def test_a_strip_is_refused(config: MakeConfig) -> None:
    with pytest.raises(EditorError, match="900x100 is longer than 8:1"):
        edit(EditPipeline.load(config("flux_kontext")), source=np.zeros((100, 900, 3), np.uint8))


def test_placing_is_asked_for_as_configured(config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offloading needs a GPU; that the right kind is asked for does not."""
    from thinkedit.actors.diffusion import pipeline as module

    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr(module, "_device", lambda name: torch.device(name))
    for offload, method in {
        "model": "enable_model_cpu_offload",
        "sequential": "enable_sequential_cpu_offload",
    }.items():
        pipeline = tiny("instruct_pix2pix")
        monkeypatch.setattr(
            type(pipeline), method, lambda self, device, m=method: calls.append((m, str(device)))
        )
        EditPipeline(replace(config("instruct_pix2pix"), device="cuda:1", offload=offload), pipeline)
    assert calls == [("enable_model_cpu_offload", "cuda:1"), ("enable_sequential_cpu_offload", "cuda:1")]

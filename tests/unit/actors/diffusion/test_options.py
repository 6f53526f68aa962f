"""The table of models, and options that can't do what they say."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from thinkedit import plugins
from thinkedit.actors.diffusion.models import MODELS
from thinkedit.actors.diffusion.options import DiffusersConfig, area, arguments
from thinkedit.configs.load import choices, load_config
from thinkedit.errors import ConfigError, UnknownName


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("flux_kontext", {"num_inference_steps": 28, "guidance_scale": 2.5, "_auto_resize": False}),
        ("qwen_image_edit", {"num_inference_steps": 50, "true_cfg_scale": 5.0, "negative_prompt": " "}),
        ("qwen_image_edit_plus", {"num_inference_steps": 40, "true_cfg_scale": 4.0, "negative_prompt": " "}),
        ("flux2_klein", {"num_inference_steps": 4, "guidance_scale": 1.0}),
        ("longcat", {"num_inference_steps": 50, "guidance_scale": 4.5, "negative_prompt": ""}),
        (
            "instruct_pix2pix",
            {
                "num_inference_steps": 100,
                "guidance_scale": 7.5,
                "image_guidance_scale": 1.5,
                "negative_prompt": "",
            },
        ),
        (
            "omnigen2",
            {
                "num_inference_steps": 50,
                "text_guidance_scale": 5.0,
                "image_guidance_scale": 1.5,
                "negative_prompt": "",
                "max_sequence_length": 896,
            },
        ),
    ],
)
def test_each_model_is_asked_as_the_table_says(model: str, expected: dict[str, Any]) -> None:
    assert arguments(DiffusersConfig(model=model)) == expected


def test_options_replace_the_tables() -> None:
    config = DiffusersConfig(
        model="instruct_pix2pix", steps=9, guidance=3.0, image_guidance=2.0, negative_prompt="x", area=10_000
    )
    assert arguments(config) == {
        "num_inference_steps": 9,
        "guidance_scale": 3.0,
        "image_guidance_scale": 2.0,
        "negative_prompt": "x",
    }
    assert area(config) == 10_000
    assert area(DiffusersConfig(model="instruct_pix2pix")) == 512 * 512


def test_without_guidance_there_is_no_negative_prompt() -> None:
    assert "negative_prompt" not in arguments(DiffusersConfig(model="qwen_image_edit", guidance=1.0))


@pytest.mark.parametrize("model", MODELS)
def test_each_models_file_asks_as_the_table_does(model: str) -> None:
    config = load_config("demo", [f"editor={model}"], require_plugins=False)
    assert config.editor.name == "diffusers"
    options = plugins.typed(DiffusersConfig, config.editor.options, where="")
    assert options.model == model
    assert arguments(options) == arguments(DiffusersConfig(model=model))
    assert options.weights in (None, MODELS[model].weights)


def test_the_few_step_file_is_one_of_the_group() -> None:
    assert "qwen_image_edit_lightning" in choices("editor")
    given = load_config("demo", ["editor=qwen_image_edit_lightning"], require_plugins=False).editor.options
    options = plugins.typed(DiffusersConfig, given, where="")
    assert (options.steps, options.lora) == (8, "lightx2v/Qwen-Image-Lightning")
    assert options.scheduler_options["shift_terminal"] is None
    assert "negative_prompt" not in arguments(options)


def test_the_papers_recipe_edits_with_flux() -> None:
    config = load_config("paper/flux_kontext", require_plugins=False)
    assert (config.editor.name, config.editor.options["model"]) == ("diffusers", "flux_kontext")


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        ({"model": "flux_context"}, "flux_kontext"),
        ({"dtype": "bfloat61"}, "bfloat16"),
        ({"quantization": "fp8_dynamik"}, "fp8_dynamic"),
        ({"offload": "modle"}, "model"),
        ({"compile": "defualt"}, "default"),
        ({"scheduler": "FlowMatchLCMSheduler"}, "FlowMatchLCMScheduler"),
        ({"model": "instruct_pix2pix", "scheduler": "EulerDiscretScheduler"}, "EulerDiscreteScheduler"),
    ],
)
def test_unknown_names_offer_the_nearest(options: dict[str, Any], nearest: str) -> None:
    with pytest.raises(UnknownName) as caught:
        DiffusersConfig(**options)
    assert caught.value.nearest == nearest


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "gpu"}, "must be cpu, cuda, or cuda:N"),
        ({"steps": 0}, "steps=0"),
        ({"area": 100}, "area=100"),
        ({"area": 2**21}, "area=2097152"),
        ({"guidance": -1.0}, "must not be negative"),
        ({"guidance": float("nan")}, "must not be negative"),
        ({"image_guidance": 2.0}, "flux_kontext takes none"),
        ({"negative_prompt": "x"}, "flux_kontext takes none"),
        ({"model": "instruct_pix2pix", "image_guidance": 0.5}, "must be at least 1"),
        ({"model": "longcat", "guidance": 1.0, "negative_prompt": "x"}, "only with guidance above 1"),
        ({"model": "longcat", "lora": "a.safetensors"}, "can load none"),
        ({"lora_scale": 0.5}, "need a lora"),
        ({"lora_file": "a.safetensors"}, "need a lora"),
        ({"lora": "a.safetensors", "lora_scale": 0.0}, "no LoRA at all"),
        ({"offload": "model", "device": "cpu"}, "nothing to offload from"),
        ({"offload": "sequential", "quantization": "int8"}, "offload=model goes with it"),
        ({"offload": "sequential", "compile": "default"}, "offload=model goes with it"),
    ],
)
def test_what_cannot_work_is_refused_with_its_field(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DiffusersConfig(**options)


def test_a_run_is_refused_before_it_starts() -> None:
    with pytest.raises(ConfigError, match="takes none"):
        load_config("demo", ["editor=flux_kontext", "editor.options.negative_prompt=x"])
    with pytest.raises(UnknownName) as caught:
        load_config("demo", ["editor=flux_kontext", "editor.options.quantisation=int8"])
    assert caught.value.nearest == "quantization"


def test_the_table_itself_can_be_asked_for_nothing_wrong() -> None:
    for name in MODELS:
        assert OmegaConf.structured(DiffusersConfig(model=name)).model == name

"""The pipeline is one of diffusers, and its network learns."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from thinkedit.actors.small_diffusion import training
from thinkedit.actors.small_diffusion.muon import Muon
from thinkedit.actors.small_diffusion.pipeline import SmallDiffusionPipeline, build, load, save
from thinkedit.actors.small_diffusion.tokenizer import MAX_TOKENS, build_tokenizer
from thinkedit.data import editing
from thinkedit.errors import ConfigError

TOKENIZER = build_tokenizer(editing.vocabulary())
SAMPLES = list(itertools.islice(editing.editing(3), 4))


def edit(pipeline: SmallDiffusionPipeline, seed: int = 0, count: int = 1) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed + k) for k in range(count)]
    images = [Image.fromarray(sample.source) for sample in SAMPLES[:count]]
    prompts = [sample.prompt for sample in SAMPLES[:count]]
    return np.stack(pipeline(images, prompts, generator=generators).images)


@pytest.fixture
def pipeline() -> SmallDiffusionPipeline:
    return build(TOKENIZER, seed=0)


def test_the_network_gives_pictures_of_the_sources_shape(pipeline: SmallDiffusionPipeline) -> None:
    words = TOKENIZER([sample.prompt for sample in SAMPLES], padding=True, return_tensors="pt")
    source = training.pixels([sample.source for sample in SAMPLES])
    with torch.no_grad():
        reading = pipeline.network.read(words.input_ids, words.attention_mask)
        clean = pipeline.network(torch.randn(source.shape), source, torch.rand(len(source)), reading)
    assert clean.shape == source.shape == (4, 3, 96, 96)


def test_padding_changes_nothing(pipeline: SmallDiffusionPipeline) -> None:
    short, long = sorted((sample.prompt for sample in SAMPLES), key=len)[:: len(SAMPLES) - 1]
    source = training.pixels([SAMPLES[0].source])
    noise, sigma = torch.randn(source.shape), torch.ones(1)
    drawn = []
    with torch.no_grad():
        for texts in ([short], [short, long]):
            words = TOKENIZER(texts, padding=True, return_tensors="pt")
            reading = pipeline.network.read(words.input_ids, words.attention_mask)
            size = (len(texts), -1, -1, -1)
            clean = pipeline.network(
                noise.expand(size), source.expand(size), sigma.expand(len(texts)), reading
            )
            drawn.append(clean[0])
    torch.testing.assert_close(*drawn, atol=1e-5, rtol=0)


def test_saved_and_loaded_again_it_gives_equal_pixels(
    pipeline: SmallDiffusionPipeline, tmp_path: Path
) -> None:
    before = edit(pipeline)
    pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "network" / "diffusion_pytorch_model.safetensors").is_file()
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    np.testing.assert_array_equal(edit(load(tmp_path)), before)


def test_it_is_stored_in_half_precision_and_used_in_full(
    pipeline: SmallDiffusionPipeline, tmp_path: Path
) -> None:
    before = edit(pipeline).astype(int)
    save(pipeline, tmp_path)
    weights = load_file(tmp_path / "network" / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    loaded = load(tmp_path)
    assert loaded.network.dtype == torch.float32
    assert np.abs(edit(loaded) - before).mean() < 2


def test_the_last_step_ends_on_the_networks_own_picture(pipeline: SmallDiffusionPipeline) -> None:
    source = training.pixels([SAMPLES[0].source])
    noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(5))
    words = TOKENIZER([SAMPLES[0].prompt], return_tensors="pt")
    with torch.no_grad():
        reading = pipeline.network.read(words.input_ids, words.attention_mask)
        clean = pipeline.network(noise, source, torch.ones(1), reading)
    image = pipeline(
        Image.fromarray(SAMPLES[0].source),
        SAMPLES[0].prompt,
        num_inference_steps=1,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).images
    torch.testing.assert_close(image, (clean / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


def test_many_at_once_are_about_what_each_is_alone(pipeline: SmallDiffusionPipeline) -> None:
    together = edit(pipeline, seed=7, count=2)
    assert np.abs(together[0].astype(int) - edit(pipeline, seed=7)[0]).max() <= 1


@pytest.mark.parametrize(
    ("images", "prompts", "match"),
    [
        ([Image.new("RGB", (64, 96))], ["paint it"], "96 x 96"),
        ([Image.new("RGB", (96, 96))], ["paint it", "erase it"], "as many prompts"),
    ],
)
def test_what_it_cannot_edit_is_refused(
    pipeline: SmallDiffusionPipeline, images: list[Image.Image], prompts: list[str], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        pipeline(images, prompts)


def test_words_count_and_their_case_and_marks_do_not() -> None:
    assert (
        TOKENIZER("Paint the CENTER star, blue!").input_ids
        == TOKENIZER("paint the centre star blue").input_ids
    )
    assert TOKENIZER("paint it blue").input_ids != TOKENIZER("paint it red").input_ids
    assert len(TOKENIZER("").input_ids) == 1
    assert len(TOKENIZER("very " * 500, truncation=True).input_ids) == MAX_TOKENS


def test_an_untrained_network_repeats_itself_and_leaves_torchs_chance_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, two = (build(TOKENIZER, seed=4).network.state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)


def trained(config: training.TrainConfig, seed: int = 0) -> tuple[training.Training, list[dict[str, float]]]:
    rows: list[dict[str, float]] = []
    teacher = training.Training(build(TOKENIZER, seed=seed), config)
    teacher.run(editing.editing(0), rows.append)
    return teacher, rows


def test_training_lowers_the_loss(pipeline: SmallDiffusionPipeline) -> None:
    config = training.TrainConfig(steps=20, batch_size=4, warmup_steps=5, log_every=5)
    teacher, rows = trained(config)
    assert teacher.log.steps == len(rows) == 20
    assert teacher.log.rows[-1]["loss"] < 0.8 * teacher.log.rows[0]["loss"]
    assert teacher.log.rows[-1]["cell_loss"] < teacher.log.rows[0]["cell_loss"]


def losses(rows: list[dict[str, float]]) -> list[tuple[float, float]]:
    return [(row["loss"], row["cell_loss"]) for row in rows]


def test_equal_seeds_give_equal_training() -> None:
    one, two = (losses(trained(training.TrainConfig(steps=3, batch_size=2))[1]) for _ in range(2))
    assert one == two
    assert losses(trained(training.TrainConfig(steps=3, batch_size=2, seed=1))[1]) != one


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    config = training.TrainConfig(steps=6, batch_size=2, log_every=4)
    whole, rows = trained(config)
    first = training.Training(build(TOKENIZER, seed=0), config)

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 3:
            first.save(tmp_path / "training.pt")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(editing.editing(0), stop)
    pipeline, rest = build(TOKENIZER, seed=5), []
    second = training.Training(pipeline, config)
    second.resume(tmp_path / "training.pt")
    second.run(editing.editing(0, 3 * config.batch_size), rest.append)
    assert losses(rest) == losses(rows[3:])
    assert losses(second.log.rows) == losses(whole.log.rows)
    assert not pipeline.network.training


def test_a_training_is_not_resumed_under_other_settings(tmp_path: Path) -> None:
    teacher, _ = trained(training.TrainConfig(steps=1, batch_size=2))
    teacher.save(tmp_path / "training.pt")
    other = training.Training(build(TOKENIZER, seed=0), training.TrainConfig(steps=1, batch_size=3))
    with pytest.raises(ConfigError, match="batch_size=2, not 3"):
        other.resume(tmp_path / "training.pt")


def test_muon_steps_along_nearly_orthogonal_matrices() -> None:
    for shape in ((24, 40), (40, 24), (8, 3, 3, 3)):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        Muon([weight], lr=1.0).step()
        matrix = -weight.detach().flatten(1)
        values = torch.linalg.svdvals(matrix) / (0.2 * max(matrix.shape) ** 0.5)
        assert values.min() > 0.6
        assert values.max() < 1.3
        assert (matrix * weight.grad.flatten(1)).sum() > 0


def test_noise_levels_are_the_schedulers(pipeline: SmallDiffusionPipeline) -> None:
    scheduler = pipeline.scheduler
    shares = np.linspace(1, 0.25, 4)
    scheduler.set_timesteps(sigmas=shares)
    ours = training.shifted(torch.tensor(shares), scheduler.config.shift)
    torch.testing.assert_close(ours.float(), scheduler.sigmas[:-1], atol=1e-6, rtol=0)


def test_changed_pixels_count_more() -> None:
    source = torch.zeros(1, 3, 4, 4)
    target = source.clone()
    target[..., 0, 0] = 1.0
    off = target.clone()
    off[..., 0, 0] += 0.5  # the edited pixel
    inside = training.edit_loss(off, source, target, 8.0)
    off = target.clone()
    off[..., 3, 3] += 0.5  # one to keep
    assert inside == pytest.approx(9 * training.edit_loss(off, source, target, 8.0))

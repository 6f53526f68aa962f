"""Scenes: what they promise, and how they are drawn and read."""

import random

import numpy as np
import pytest

from thinkedit.envs.world import Item, Scene, describe, read_scene, render, sample_scene, spoil
from thinkedit.envs.world.instructions import odd_one_out


def test_the_same_generator_state_gives_the_same_scene() -> None:
    assert sample_scene(random.Random(5)) == sample_scene(random.Random(5))


def test_objects_of_a_sampled_scene_differ_in_colour_or_shape() -> None:
    rng = random.Random(0)
    for _ in range(300):
        names = [item.name for item in sample_scene(rng, counts=(2, 3, 4, 5, 9)).items]
        assert len(set(names)) == len(names)


def test_some_scenes_have_an_odd_one_out_and_some_have_none() -> None:
    rng = random.Random(1)
    odd = [len(odd_one_out(sample_scene(rng, counts=(3,)))) for _ in range(200)]
    assert set(odd) == {0, 1}
    assert 60 <= sum(odd) <= 140


def test_a_scene_refuses_two_items_in_one_cell() -> None:
    item = Item(3, "big", "red", "star")
    with pytest.raises(ValueError, match="share none"):
        Scene((item, item))


def test_description_is_exact_and_names_artefacts() -> None:
    scene = Scene.of(
        [Item(4, "small", "blue", "circle", smudged=True), Item(0, "big", "red", "star")], noise=2
    )
    assert describe(scene) == "top-left big red star; centre smudged small blue circle; noise"
    assert describe(Scene(())) == "nothing"


def test_canonical_form_ignores_jitter_and_artefacts() -> None:
    one = Scene((Item(2, "big", "red", "star", jitter=0),))
    two = Scene((Item(2, "big", "red", "star", jitter=3, smudged=True),), noise=1)
    assert one.canonical == two.canonical
    assert one.canonical != Scene((Item(2, "small", "red", "star"),)).canonical


def test_a_picture_is_a_new_array_each_time() -> None:
    scene = sample_scene(random.Random(0))
    first = render(scene)
    first[:] = 0
    assert render(scene).any()


def test_noise_is_seen_as_noise_and_not_as_objects() -> None:
    reading = read_scene(render(Scene((), noise=3)))
    assert reading.scene == Scene((), noise=3)
    assert reading.noisy
    assert reading.exact


@pytest.mark.parametrize("amount", [1, 3])
def test_a_picture_slightly_off_is_read_all_the_same_but_not_called_exact(amount: int) -> None:
    rng = random.Random(amount)
    for _ in range(30):
        scene = spoil(sample_scene(rng), rng, noise=0)
        picture = render(scene).astype(np.int16)
        shaken = np.clip(
            picture + np.random.default_rng(0).integers(-amount, amount + 1, picture.shape), 0, 255
        )
        reading = read_scene(shaken.astype(np.uint8))
        assert reading.scene == scene
        assert not reading.exact
        assert 0 < reading.residual <= amount


def test_soft_edges_like_those_of_a_neural_editor_are_read_right() -> None:
    rng = random.Random(3)
    for _ in range(30):
        scene = sample_scene(rng)
        picture = render(scene).astype(np.float64)
        soft = (picture + np.roll(picture, 1, 0) + np.roll(picture, -1, 0) + np.roll(picture, 1, 1)) / 4
        reading = read_scene(soft.astype(np.uint8))
        assert [(item.cell, item.look) for item in reading.scene.items] == [
            (item.cell, item.look) for item in scene.items
        ]
        assert not reading.noisy


def test_static_gets_an_answer_and_counts_as_noisy() -> None:
    static = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    reading = read_scene(static)
    assert reading.noisy
    assert not reading.exact


@pytest.mark.parametrize(
    "picture",
    [np.zeros((95, 96, 3), np.uint8), np.zeros((96, 96), np.uint8), np.zeros((96, 96, 3), np.float32)],
)
def test_what_is_no_picture_of_the_world_by_size_or_type_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="96, 96, 3"):
        read_scene(picture)

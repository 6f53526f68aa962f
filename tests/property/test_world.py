"""Laws of the world that hold for every scene, text and seed."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkedit.envs.editors.procedural import ProceduralEditor
from thinkedit.envs.tasks import SPLITS
from thinkedit.envs.world import (
    CELLS,
    COLOURS,
    SHAPES,
    SIZES,
    Item,
    Scene,
    describe,
    read_scene,
    render,
    sample_scene,
)
from thinkedit.envs.world.instructions import (
    OPERATIONS,
    REFERENCE_KINDS,
    find_instruction,
    normalise,
    parse_instruction,
    sample_instruction,
)
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.envs.world.reading import reading_fidelity
from thinkedit.envs.world.scene import JITTERS, NOISES
from thinkedit.envs.world.tasks import WorldTasks, WorldTasksConfig, split_of

looks = st.tuples(
    st.sampled_from(SIZES),
    st.sampled_from(COLOURS),
    st.sampled_from(SHAPES),
    st.integers(0, JITTERS - 1),
    st.booleans(),
)
scenes = st.builds(
    lambda looks, noise: Scene(tuple(Item(cell, *look) for cell, look in enumerate(looks) if look), noise),
    st.lists(st.none() | looks, min_size=len(CELLS), max_size=len(CELLS)),
    st.integers(0, NOISES),
)
rngs = st.integers(0, 2**32).map(random.Random)
images = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)
)


@given(scenes)
@settings(max_examples=300)
def test_reading_undoes_drawing(scene: Scene) -> None:
    reading = read_scene(render(scene))
    assert reading.exact
    assert reading.scene == scene


@given(images)
@settings(max_examples=25)
def test_any_image_is_read_as_some_scene(image: np.ndarray) -> None:
    assert describe(read_scene(image).scene)


@given(rngs, st.sampled_from(OPERATIONS), st.sampled_from(REFERENCE_KINDS))
@settings(max_examples=300)
def test_every_instruction_parses_to_goals_of_its_kind(rng: random.Random, operation: str, kind: str) -> None:
    scene = sample_scene(rng)
    text = sample_instruction(scene, operation, kind, rng)  # type: ignore[arg-type]
    if text is None:
        return
    instruction = parse_instruction(text)
    assert instruction is not None
    assert instruction == find_instruction(f"Would you, {text.title()}?")
    goals = instruction.goals(scene)
    assert all(goal.operation == operation for goal in goals)
    assert (len(goals) > 1) == (kind == "ambiguous" and operation != "add")


@given(rngs, st.sampled_from(OPERATIONS), st.sampled_from(REFERENCE_KINDS))
def test_each_goal_met_exactly_scores_full_marks(rng: random.Random, operation: str, kind: str) -> None:
    scene = sample_scene(rng)
    text = sample_instruction(scene, operation, kind, rng)  # type: ignore[arg-type]
    instruction = parse_instruction(text) if text else None
    if text is None or instruction is None:
        return
    for goal in instruction.goals(scene):
        items = [item for item in scene.items if item != goal.target] + ([goal.wanted] if goal.wanted else [])
        scores = WorldJudge().judge(render(scene), render(Scene.of(items)), text).scores
        assert (scores.semantic, scores.quality) == (10, 10)


@given(rngs, scenes)
@settings(max_examples=200)
def test_scores_stay_in_bounds_whatever_the_edit(rng: random.Random, edited: Scene) -> None:
    source = sample_scene(rng)
    text = sample_instruction(source, rng.choice(OPERATIONS), "explicit", rng)
    if text is None:
        return
    scores = WorldJudge().judge(render(source), render(edited), text).scores
    assert 0 <= scores.semantic <= 10
    assert 0 <= scores.quality <= 10


@given(scenes, st.text(), st.integers(-(2**63), 2**63))
def test_any_prompt_gives_a_picture_and_always_the_same(scene: Scene, prompt: str, seed: int) -> None:
    source = render(scene)
    one = ProceduralEditor().edit(source, prompt, seed=seed)
    assert np.array_equal(one, ProceduralEditor().edit(source.copy(), prompt, seed=seed))
    assert read_scene(one).exact


WORDS = [
    "paint",
    "erase",
    "swap",
    "slide",
    "draw",
    "the",
    "a",
    "red",
    "blue",
    "star",
    "circle",
    "shape",
    "leftmost",
    "odd",
    "one",
    "out",
    "at",
    "to",
    "for",
    "with",
    "top",
    "top-left",
    "centre",
    "big",
    "small",
    ",",
    "please",
    "keep",
    "everything",
    "else",
    "unchanged",
]
prompt_words = st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join)


@given(scenes, prompt_words, st.integers(0, 100))
@settings(max_examples=200)
def test_almost_instructions_never_break_the_editor(scene: Scene, prompt: str, seed: int) -> None:
    edited = read_scene(ProceduralEditor().edit(render(scene), prompt, seed=seed))
    assert edited.exact
    assert abs(len(edited.scene.items) - len(scene.items)) <= 1


@given(st.text())
@settings(max_examples=300)
def test_no_text_breaks_the_readers(text: str) -> None:
    strict, lenient = parse_instruction(text), find_instruction(text)
    assert strict is None or strict == lenient
    assert normalise(normalise(text)) == normalise(text)
    assert reading_fidelity(text, render(Scene(())), render(Scene(()))) in (0.0, 0.5, 1.0)


@given(scenes)
def test_a_scene_belongs_to_one_split_however_it_is_drawn(scene: Scene) -> None:
    clean = Scene(tuple(Item(item.cell, item.size, item.colour, item.shape) for item in scene.items))
    assert split_of(scene) == split_of(clean)
    assert split_of(scene) in SPLITS


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 10**6))
@settings(max_examples=25)
def test_no_source_of_one_split_is_ever_in_another(seed: int, other_seed: int, index: int) -> None:
    # by construction: whatever seed and options draw a task, its scene decides the split
    for tasks in (
        WorldTasks(WorldTasksConfig(seed=seed)),
        WorldTasks(WorldTasksConfig(seed=other_seed, objects=[2, 5])),
    ):
        for split in SPLITS:
            assert split_of(read_scene(tasks.task(split, index).source).scene) == split

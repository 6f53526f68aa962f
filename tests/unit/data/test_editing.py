"""Training edits: exact by the world's own judge, of scenes that no held-out task shows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from thinkedit.actors.small_diffusion.samples import EMPTY
from thinkedit.actors.small_diffusion.tokenizer import MAX_TOKENS, build_tokenizer
from thinkedit.data import editing
from thinkedit.data.looking import LEARNED_SPLITS
from thinkedit.envs.world.instructions import KEEP_CLAUSES, OPERATIONS, STYLE_CLAUSES, find_instruction, refer
from thinkedit.envs.world.judge import WorldJudge, assess
from thinkedit.envs.world.scene import COLOURS, SHAPES, SIZES
from thinkedit.envs.world.sprites import read_scene
from thinkedit.envs.world.tasks import split_of

SAMPLES = list(itertools.islice(editing.editing(0), 300))


def test_every_target_is_a_perfect_edit() -> None:
    for sample in SAMPLES:
        source, target = read_scene(sample.source), read_scene(sample.target)
        instruction = find_instruction(sample.prompt)
        assert target.exact
        assert instruction is not None
        assert assess(source.scene, target.scene, instruction.goals(source.scene)).scores.lowest == 10


def test_learned_scenes_are_of_the_learned_splits() -> None:
    pictures = [picture for sample in SAMPLES for picture in (sample.source, sample.target)]
    assert {split_of(read_scene(picture).scene) for picture in pictures} == set(LEARNED_SPLITS)


def test_prompts_are_worded_as_tasks_and_as_experts_word_them() -> None:
    prompts = [sample.prompt for sample in SAMPLES]
    for part in (*KEEP_CLAUSES, *STYLE_CLAUSES, "please", "odd one out", "leftmost", " at top-left"):
        assert any(part in prompt for prompt in prompts), part
    bare = [prompt for prompt in prompts if "," not in prompt and "please" not in prompt]
    assert len(prompts) / 4 < len(bare) < len(prompts) / 2
    assert {find_instruction(prompt).operation for prompt in prompts} == set(OPERATIONS)  # type: ignore[union-attr]


def test_cells_name_what_the_target_shows() -> None:
    for sample in SAMPLES[:50]:
        scene = read_scene(sample.target).scene
        for cell, look in enumerate(sample.cells):
            item = scene.at(cell)
            if item is None:
                assert look == (EMPTY,) * 3
            else:
                assert (SIZES[look[0]], COLOURS[look[1]], SHAPES[look[2]]) == item.look


def test_equal_seeds_give_equal_samples() -> None:
    again = list(itertools.islice(editing.editing(0), 20))
    other = list(itertools.islice(editing.editing(1), 20))
    assert [sample.prompt for sample in again] == [sample.prompt for sample in SAMPLES[:20]]
    assert all(np.array_equal(a.target, b.target) for a, b in zip(again, SAMPLES, strict=False))
    assert [sample.prompt for sample in other] != [sample.prompt for sample in again]


@pytest.mark.parametrize("placed", [False, True])
def test_trials_are_held_out_and_can_be_judged(placed: bool) -> None:
    for trial in editing.trials(40, placed=placed):
        scene = read_scene(trial.source).scene
        assert split_of(scene) == "test"
        WorldJudge().judge(trial.source, trial.source, trial.instruction)  # raises where it can't
        if not placed:
            assert trial.prompt == trial.instruction


def test_a_placed_trial_names_a_right_target_and_its_place() -> None:
    for trial in editing.trials(40, placed=True):
        scene = read_scene(trial.source).scene
        asked, meant = find_instruction(trial.instruction), find_instruction(trial.prompt)
        assert asked is not None
        assert meant is not None
        (goal,) = meant.goals(scene)
        assert goal in asked.goals(scene)
        assert goal.target is None or refer(goal.target, place=True) in trial.prompt


def test_the_vocabulary_has_every_word_and_no_prompt_is_cut() -> None:
    tokenizer = build_tokenizer(editing.vocabulary())
    for sample in SAMPLES:
        tokens = tokenizer(sample.prompt).input_ids
        assert tokenizer.unk_token_id not in tokens
        assert len(tokens) < MAX_TOKENS

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


def test_a_stream_can_be_taken_up_in_the_middle() -> None:
    later = list(itertools.islice(editing.editing(0, 20), 5))
    assert [sample.prompt for sample in later] == [sample.prompt for sample in SAMPLES[20:25]]
    assert all(np.array_equal(a.target, b.target) for a, b in zip(later, SAMPLES[20:25], strict=True))


@pytest.mark.parametrize("wording", editing.WORDINGS)
def test_trials_are_held_out_and_can_be_judged(wording: editing.Wording) -> None:
    for trial in editing.trials(40, wording):
        scene = read_scene(trial.source).scene
        assert split_of(scene) == "test"
        WorldJudge().judge(trial.source, trial.source, trial.instruction)  # raises where it can't


def test_wordings_ask_for_the_same_edits_and_say_what_they_promise() -> None:
    for given, named, placed, kept in zip(
        *(editing.trials(40, wording) for wording in editing.WORDINGS), strict=True
    ):
        scene = read_scene(given.source).scene
        asked, meant = find_instruction(given.instruction), find_instruction(placed.prompt)
        assert given.prompt == given.instruction
        assert asked is not None
        assert meant is not None
        (goal,) = meant.goals(scene)
        assert goal in asked.goals(scene)
        if goal.target:
            assert refer(goal.target) in named.prompt
            assert refer(goal.target, place=True) in placed.prompt
        assert kept.prompt.removeprefix(placed.prompt).removeprefix(", ") in KEEP_CLAUSES


def test_the_vocabulary_has_every_word_and_no_prompt_is_cut() -> None:
    tokenizer = build_tokenizer(editing.vocabulary())
    for sample in SAMPLES:
        tokens = tokenizer(sample.prompt).input_ids
        assert tokenizer.unk_token_id not in tokens
        assert len(tokens) < MAX_TOKENS

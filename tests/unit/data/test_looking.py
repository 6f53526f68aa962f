"""Pretraining questions: right by the world's own reading, and silent about what the base must not know."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from thinkedit.data import looking
from thinkedit.envs.world.scene import CELLS, describe
from thinkedit.envs.world.sprites import read_scene
from thinkedit.envs.world.tasks import split_of
from thinkedit.learner.policy.samples import LookSample

SAMPLES = list(itertools.islice(looking.looking(0), 400))


def rounds(start: str) -> list[tuple[LookSample, str, str]]:
    found = [(s, q, a) for s in SAMPLES for q, a in s.rounds if q.startswith(start)]
    assert len(found) > 10
    return found


def scene(sample: LookSample, question: str):
    return read_scene(sample.pictures[1 if "second" in question else 0]).scene


def test_descriptions_are_what_the_world_reads() -> None:
    for sample, _, answer in rounds("describe both"):
        first, second = (describe(read_scene(picture).scene) for picture in sample.pictures)
        assert answer == f"first: {first}. second: {second}."


def test_found_objects_stand_where_the_answer_says() -> None:
    for sample, question, answer in rounds("find"):
        shown = {str(item) for item in scene(sample, question).items}
        if answer != "nothing":
            assert set(answer.split("; ")) <= shown


def test_a_comparison_tells_the_object_what_is_there_now_and_all_else_that_differs() -> None:
    for sample, _, answer in rounds("compare"):
        first, second = (read_scene(picture).scene for picture in sample.pictures)
        old, now, others = re.fullmatch(r"(.+), shows (.+); others: (.+)", answer).groups()
        item = next(item for item in first.items if str(item) == old)
        assert now == str(second.at(item.cell) or "nothing")
        same = {i.cell for i in first.items if (there := second.at(i.cell)) and there.look == i.look}
        changed = {i.cell for i in first.items} - same - {item.cell}
        new = {i.cell for i in second.items} - {i.cell for i in first.items}
        assert (others == "none") == (not changed and not new)
        if others != "none":
            assert len(others.split(", ")) == len(changed) + len(new)


def test_an_imagined_object_has_what_the_question_gives_it_and_keeps_the_rest() -> None:
    for sample, question, answer in rounds("what if"):
        given = question.removeprefix("what if ").removesuffix("?").rpartition(" is ")[2]
        words = set(given.split()) - {"a", "an", "at"}
        assert words <= set(answer.split())
        if not question.startswith("what if a"):
            left = set(answer.replace("smudged ", "").split()) - words
            first = read_scene(sample.pictures[0]).scene
            assert any(left <= set(str(item).split()) for item in first.items)


def test_a_cell_holds_what_the_answer_says() -> None:
    for sample, question, answer in rounds("what is at"):
        cell = re.findall(r"at (\S+) in", question)[0]
        item = scene(sample, question).at(CELLS.index(cell))
        assert answer == (str(item).removeprefix(f"{cell} ") if item else "nothing")


def test_nothing_differs_exactly_when_the_descriptions_are_equal() -> None:
    for sample, _, answer in rounds("what differs"):
        first, second = (describe(read_scene(picture).scene) for picture in sample.pictures)
        assert (answer == "nothing") == (first == second)


def test_cells_tell_objects_from_gaps() -> None:
    for sample in SAMPLES:
        for picture, cells in zip(sample.pictures, sample.cells, strict=True):
            full = {item.cell for item in read_scene(picture).scene.items}
            assert {k for k, kind in enumerate(cells) if kind} == full
            assert all(0 <= kind < looking.KINDS for kind in cells)


def test_equal_seeds_give_equal_samples_and_splits_differ() -> None:
    again = list(itertools.islice(looking.looking(0), 20))
    assert [s.rounds for s in again] == [s.rounds for s in SAMPLES[:20]]
    assert all(
        np.array_equal(p, q)
        for a, b in zip(again, SAMPLES, strict=False)
        for p, q in zip(a.pictures, b.pictures, strict=True)
    )
    other = itertools.islice(looking.looking(0, "val"), 20)
    assert [s.rounds for s in other] != [s.rounds for s in SAMPLES[:20]]


def test_learned_and_held_out_pictures_share_no_scene() -> None:
    tests = itertools.chain(
        itertools.islice(looking.reading_test(), 20), itertools.islice(looking.grounding_test(), 20)
    )
    for samples, splits in ((SAMPLES, looking.LEARNED_SPLITS), (tests, looking.HELD_OUT_SPLITS)):
        shown = {split_of(read_scene(picture).scene) for s in samples for picture in s.pictures}
        assert shown == set(splits)


@pytest.mark.parametrize("word", ["<think>", "<score>", "semantic", "instruction", "edit", "keep", "paint"])
def test_the_base_hears_nothing_of_replies_or_edits(word: str) -> None:
    assert [a for s in SAMPLES for q, a in s.rounds if word in q + a] == []

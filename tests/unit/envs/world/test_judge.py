"""The exact judge, rule by rule."""

from dataclasses import replace

import numpy as np
import pytest

from thinkedit.envs.world import Item, Scene, render
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.errors import JudgeError
from thinkedit.rewards.judges.base import Judge
from thinkedit.testing import JudgeContract
from thinkedit.types import RGB

STAR = Item(0, "big", "red", "star", jitter=1)
SQUARE = Item(4, "small", "blue", "square", jitter=2)
DISC = Item(8, "small", "green", "circle")
SOURCE = Scene((STAR, SQUARE, DISC))


def marks(instruction: str, *edited: Item, noise: int = 0, source: Scene = SOURCE) -> tuple[float, float]:
    verdict = WorldJudge().judge(render(source), render(Scene.of(edited, noise)), instruction)
    return verdict.scores.semantic, verdict.scores.quality


BIG_RED = ("big", "red", "circle")
BLUE_STAR = replace(STAR, colour="blue")


class TestWorldJudge(JudgeContract):
    def make(self) -> Judge:
        return WorldJudge()

    def source(self) -> RGB:
        return render(SOURCE)

    def edited(self) -> RGB:
        return render(Scene((BLUE_STAR, SQUARE, DISC)))

    def instruction(self) -> str:
        return "paint the red star blue"


@pytest.mark.parametrize(
    ("instruction", "edited", "expected"),
    [
        ("paint the red star blue", (BLUE_STAR, SQUARE, DISC), (10, 10)),
        ("paint the red star blue", (STAR, SQUARE, DISC), (0, 10)),
        ("paint the red star blue", (replace(STAR, colour="yellow"), SQUARE, DISC), (2, 10)),
        ("paint the red star blue", (replace(BLUE_STAR, size="small"), SQUARE, DISC), (2, 10)),
        ("paint the red star blue", (BLUE_STAR, replace(SQUARE, colour="red"), DISC), (6, 10)),
        ("paint the red star blue", (BLUE_STAR, DISC), (6, 10)),
        ("paint the red star blue", (BLUE_STAR, replace(SQUARE, colour="red")), (2, 10)),
        ("paint the red star blue", (BLUE_STAR, replace(SQUARE, smudged=True), DISC), (10, 6)),
        ("paint the red star blue", (BLUE_STAR, SQUARE, DISC, Item(2, "big", "red", "star")), (6, 10)),
        ("erase the red star", (SQUARE, DISC), (10, 10)),
        ("erase the red star", (replace(STAR, smudged=True), SQUARE, DISC), (3, 6)),
        ("erase the red star", (STAR, DISC), (0, 10)),
        (
            "swap the red star for a green square",
            (replace(STAR, colour="green", shape="square"), SQUARE, DISC),
            (10, 10),
        ),
        ("swap the red star for a green square", (replace(STAR, colour="green"), SQUARE, DISC), (5, 10)),
        ("swap the red star for a green square", (replace(STAR, shape="square"), SQUARE, DISC), (0, 10)),
        ("slide the red star to top", (replace(STAR, cell=1), SQUARE, DISC), (10, 10)),
        ("slide the red star to top", (replace(STAR, cell=2), SQUARE, DISC), (4, 10)),
        ("slide the red star to top", (replace(STAR, cell=2), SQUARE, DISC, Item(3, *BIG_RED)), (0, 10)),
        ("slide the red star to top", (replace(STAR, cell=1), SQUARE, DISC, Item(3, *BIG_RED)), (6, 10)),
        (
            "slide the red star to top",
            (replace(STAR, cell=1), SQUARE, DISC, *(Item(cell, *BIG_RED) for cell in (2, 3, 5))),
            (0, 10),
        ),
        ("slide the red star to top", (STAR, replace(STAR, cell=1), SQUARE, DISC), (0, 10)),
        ("slide the red star to top", (SQUARE, DISC), (0, 10)),
        ("draw a red square at top", (STAR, Item(1, "small", "red", "square"), SQUARE, DISC), (10, 10)),
        ("draw a red square at top", (STAR, Item(1, "big", "green", "square"), SQUARE, DISC), (5, 10)),
        ("draw a red square at top", (STAR, Item(2, "big", "red", "square"), SQUARE, DISC), (0, 10)),
    ],
)
def test_semantic_and_quality_follow_the_rules(
    instruction: str, edited: tuple[Item, ...], expected: tuple[float, float]
) -> None:
    assert marks(instruction, *edited) == expected


def test_noise_costs_five_and_each_smudge_four_down_to_zero() -> None:
    assert marks("paint the red star blue", BLUE_STAR, SQUARE, DISC, noise=4) == (10, 5)
    smudged = [replace(item, smudged=True) for item in (BLUE_STAR, SQUARE, DISC)]
    assert marks("paint the red star blue", *smudged) == (10, 0)


def test_jitter_is_of_no_meaning() -> None:
    assert marks("paint the red star blue", *(replace(i, jitter=3) for i in (BLUE_STAR, SQUARE, DISC))) == (
        10,
        10,
    )


@pytest.mark.parametrize("chosen", [0, 1])
def test_any_object_an_ambiguous_phrase_fits_is_a_right_target(chosen: int) -> None:
    pair = (STAR, Item(5, "big", "green", "star"))
    source = Scene((*pair, DISC))
    edited = [replace(item, colour="orange") if k == chosen else item for k, item in enumerate(pair)]
    assert marks("paint the star orange", *edited, DISC, source=source) == (10, 10)
    both = [replace(item, colour="orange") for item in pair]
    assert marks("paint the star orange", *both, DISC, source=source) == (6, 10)


@pytest.mark.parametrize(
    "instruction",
    ["", "add a lamp", "erase the purple star", "slide the red star to centre", "paint the red star"],
)
def test_an_instruction_it_cannot_grade_is_an_error_and_never_a_score(instruction: str) -> None:
    with pytest.raises(JudgeError):
        marks(instruction, STAR, SQUARE, DISC)


def test_a_picture_of_another_size_is_an_error() -> None:
    with pytest.raises(JudgeError, match="96"):
        WorldJudge().judge(render(SOURCE), np.zeros((64, 64, 3), np.uint8), "paint the red star blue")


def test_a_verdict_names_the_judge_and_its_rules() -> None:
    verdict = WorldJudge().judge(render(SOURCE), render(SOURCE), "paint the red star blue")
    assert verdict.judge_id == "world@1"
    assert len(verdict.prompt_hash) == 16
    assert verdict.notes["status"] == "unchanged"

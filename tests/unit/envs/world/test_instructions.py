"""The language: what each form means, and what is no instruction."""

import pytest

from thinkedit.envs.world.instructions import find_instruction, normalise, parse_instruction
from thinkedit.envs.world.scene import CELLS, Item, Scene

STAR = Item(0, "big", "red", "star")
SQUARE = Item(4, "small", "blue", "square")
DISC = Item(5, "small", "red", "circle")
GREEN_DISC = Item(8, "big", "green", "circle")
SCENE = Scene((STAR, SQUARE, DISC, GREEN_DISC))
ODD = Scene((STAR, DISC, GREEN_DISC))


def targets(text: str, scene: Scene = SCENE) -> list[Item | None]:
    instruction = parse_instruction(text)
    assert instruction is not None, text
    return [goal.target for goal in instruction.goals(scene)]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("the red star", [STAR]),
        ("the big red star at top-left", [STAR]),
        ("the star", [STAR]),
        ("the blue shape", [SQUARE]),
        ("the red shape", [STAR, DISC]),
        ("the circle", [DISC, GREEN_DISC]),
        ("the small circle", [DISC]),
        ("the leftmost shape", [STAR]),
        ("the rightmost shape", [DISC, GREEN_DISC]),
        ("the lowest shape", [GREEN_DISC]),
        ("the topmost circle", [DISC]),
        ("the smallest shape", [SQUARE, DISC]),
        ("the biggest red shape", [STAR]),
        ("the purple star", []),
        ("the red star at right", []),
        ("the small red star", []),
        ("the odd one out", []),
    ],
)
def test_a_reference_means_exactly_the_objects_it_fits(reference: str, expected: list[Item]) -> None:
    assert targets(f"erase {reference}") == expected


def test_the_odd_one_out_is_the_only_one_of_its_shape_where_all_others_share_one() -> None:
    assert targets("erase the odd one out", ODD) == [STAR]
    assert targets("erase the odd one out", Scene((STAR, DISC))) == []


@pytest.mark.parametrize(
    ("text", "operation", "wanted"),
    [
        ("paint the red star blue", "recolour", Item(0, "big", "blue", "star")),
        ("change the red star to blue", "recolour", Item(0, "big", "blue", "star")),
        ("delete the red star", "remove", None),
        ("swap the red star for an orange square", "replace", Item(0, "big", "orange", "square")),
        ("replace the red star with a small green circle", "replace", Item(0, "small", "green", "circle")),
        ("slide the red star at top-left to the bottom-left", "move", Item(6, "big", "red", "star")),
        ("put a yellow triangle at top", "add", Item(1, "big", "yellow", "triangle")),
        ("Please MAKE  the red star blue, leave the rest alone.", "recolour", Item(0, "big", "blue", "star")),
    ],
)
def test_each_operation_says_what_should_be_there(text: str, operation: str, wanted: Item | None) -> None:
    instruction = parse_instruction(text)
    assert instruction is not None
    [goal] = instruction.goals(SCENE)
    assert (goal.operation, goal.wanted) == (operation, wanted)


@pytest.mark.parametrize("text", ["move the red star to centre", "put a blue star at top-left"])
def test_a_taken_cell_leaves_no_right_outcome(text: str) -> None:
    instruction = parse_instruction(text)
    assert instruction is not None
    assert instruction.goals(SCENE) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "paint it blue",
        "paint the red star",
        "paint the red star blue and sing",
        "repaint the red star blue",
        "move the red star to bottom-most",
        "erase the red star\N{BELL}",
        "把红色的星星涂成蓝色",
    ],
)
def test_what_is_not_wholly_an_instruction_is_none_to_the_strict_reader(text: str) -> None:
    assert parse_instruction(text) is None


def test_the_lenient_reader_finds_the_first_instruction_in_any_text() -> None:
    found = find_instruction("Well: erase the red star, then paint the blue square green; thanks!")
    assert found is not None
    assert (found.operation, found.verb) == ("remove", "erase")
    assert find_instruction("make it look natural") is None


def test_american_spelling_of_the_centre_is_the_same_wording() -> None:
    assert normalise("Move the star to Center") == "move the star to centre"
    assert set(CELLS) >= {"centre"}

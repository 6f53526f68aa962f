"""The procedural editor: each quirk alone, by setting the others to certain."""

from dataclasses import replace

import numpy as np
import pytest

from thinkedit import plugins
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.editors.procedural import ProceduralEditor, Quirks
from thinkedit.envs.world import Item, Scene, read_scene, render
from thinkedit.envs.world.instructions import OPERATION_OF
from thinkedit.errors import ConfigError, EditorError, UnknownName
from thinkedit.testing import EditorContract
from thinkedit.types import RGB

STAR = Item(0, "big", "red", "star", jitter=1)
SQUARE = Item(4, "small", "blue", "square", jitter=2)
DISC = Item(8, "small", "green", "circle")
SOURCE = Scene((STAR, SQUARE, DISC))
PERFECT = Quirks(
    verbs=dict.fromkeys(OPERATION_OF, 1.0),
    find_by_name=1.0,
    find_by_place=1.0,
    find_indirect=1.0,
    keep_clauses={},
    harm=0.0,
    noise=0.0,
)


class TestProceduralEditor(EditorContract):
    def make(self) -> Editor:
        return ProceduralEditor()

    def source(self) -> RGB:
        return render(SOURCE)


def outcomes(prompt: str, quirks: Quirks, *, source: Scene = SOURCE, n: int = 60) -> list[Scene]:
    editor, picture = ProceduralEditor(quirks), render(source)
    return [read_scene(editor.edit(picture, prompt, seed=seed)).scene for seed in range(n)]


def one(prompt: str, quirks: Quirks = PERFECT) -> Scene:
    scenes = set(outcomes(prompt, quirks, n=5))
    assert len(scenes) == 1
    return scenes.pop()


@pytest.mark.parametrize(
    ("prompt", "items"),
    [
        ("paint the red star yellow", (replace(STAR, colour="yellow"), SQUARE, DISC)),
        ("erase the square", (STAR, DISC)),
        (
            "swap the leftmost shape for a purple circle",
            (Item(0, "big", "purple", "circle", 1), SQUARE, DISC),
        ),
        ("slide the red star at top-left to right", (replace(STAR, cell=5), SQUARE, DISC)),
        ("draw an orange star at top", (STAR, Item(1, "big", "orange", "star"), SQUARE, DISC)),
    ],
)
def test_without_quirks_it_does_as_told(prompt: str, items: tuple[Item, ...]) -> None:
    assert one(prompt) == Scene.of(items)


@pytest.mark.parametrize(
    "prompt",
    [
        "erase the purple star",
        "erase the red star at right",
        "erase the small red star",
        "erase the odd one out",
        "slide the red star to centre",
        "draw a red circle at top-left",
        "erase it",
        "sparkle",
        "",
    ],
)
def test_what_is_not_there_or_cannot_be_done_leaves_the_picture_alone(prompt: str) -> None:
    assert set(outcomes(prompt, Quirks(noise=0.0))) == {SOURCE}


def test_an_explicit_reference_is_found_as_often_as_the_table_says() -> None:
    quirks = replace(PERFECT, find_by_name=0.7)
    right = Scene((replace(STAR, colour="yellow"), SQUARE, DISC))
    found = outcomes("paint the red star yellow", quirks, n=400)
    # a misread reference means a random object, the right one included
    assert found.count(right) / 400 == pytest.approx(0.7 + 0.3 / 3, abs=0.06)
    assert set(outcomes("paint the red star at top-left yellow", quirks)) == {right}


def test_an_indirect_reference_is_misread_even_when_it_is_clear() -> None:
    found = outcomes("erase the star", replace(PERFECT, find_indirect=0.0), n=300)
    assert {len(scene.items) for scene in found} == {2}
    assert found.count(Scene((SQUARE, DISC))) / 300 == pytest.approx(1 / 3, abs=0.08)


def test_an_ambiguous_reference_means_any_object_it_fits() -> None:
    source = Scene((STAR, SQUARE, Item(5, "big", "green", "star")))
    found = outcomes("erase the star", PERFECT, source=source)
    assert {scene.items for scene in found} == {(SQUARE, source.items[2]), (STAR, SQUARE)}


@pytest.mark.parametrize(
    ("prompt", "changed"),
    [
        (
            "make the red star yellow",
            lambda scene: scene.items[0].look not in (STAR.look, ("big", "yellow", "star")),
        ),
        ("remove the red star", lambda scene: scene.items[0] == replace(STAR, smudged=True)),
        ("replace the red star with a blue disc", lambda scene: scene == SOURCE),
        (
            "replace the red star with a blue circle",
            lambda scene: scene.items[0] == replace(STAR, colour="blue"),
        ),
        ("move the red star to right", lambda scene: scene.at(0) is None and scene.at(5) is None),
        ("add an orange star at top", lambda scene: scene.items[1].look[1] != "orange"),
    ],
)
def test_a_half_done_edit_is_near_the_goal_and_not_it(prompt: str, changed: object) -> None:
    quirks = replace(PERFECT, verbs=dict.fromkeys(OPERATION_OF, 0.0), half_done=1.0)
    scenes = outcomes(prompt, quirks)
    wrong = [scene for scene in scenes if not changed(scene)]  # type: ignore[operator]
    # a wrong colour may by chance be the one it had
    assert all(scene.items[0].look == STAR.look for scene in wrong)
    assert len(wrong) < len(scenes) / 2


def test_a_keep_clause_sets_the_chance_of_harm_and_the_first_one_written_counts() -> None:
    quirks = replace(PERFECT, harm=1.0, keep_clauses={"hands off": 0.0, "careful": 1.0})

    def harmed(prompt: str) -> bool:
        scenes = outcomes(prompt, quirks)
        states = {scene != Scene((SQUARE, DISC)) for scene in scenes}
        assert len(states) == 1
        return states.pop()

    assert harmed("erase the red star")
    assert not harmed("erase the red star, hands off")
    assert harmed("erase the red star, careful")
    assert not harmed("erase the red star, hands off, careful")
    assert harmed("erase the red star, careful, hands off")


def test_harm_is_a_smudge_or_a_wrong_colour_on_one_bystander() -> None:
    for scene in outcomes("erase the red star", replace(PERFECT, harm=1.0)):
        changed = [item for item in scene.items if item not in SOURCE.items]
        assert len(changed) == 1
        before = SOURCE.at(changed[0].cell)
        assert before is not None
        assert changed[0].smudged or changed[0] == replace(before, colour=changed[0].colour)


def test_only_prompts_longer_than_the_limit_bring_noise() -> None:
    quirks = replace(PERFECT, noise=1.0, max_words=6)
    assert not one("paint the red star yellow, please", quirks).noise
    noisy = outcomes("paint the red star yellow, very please", quirks)
    assert all(scene.noise for scene in noisy)
    assert len({scene.noise for scene in noisy}) > 1


def test_case_and_spacing_do_not_reroll_the_dice_but_words_do() -> None:
    editor, picture = ProceduralEditor(), render(SOURCE)

    def course(prompt: str) -> list[bytes]:
        return [editor.edit(picture, prompt, seed=seed).tobytes() for seed in range(40)]

    assert course("make the star blue") == course("  MAKE the\tstar blue ")
    assert course("make the star blue") != course("please make the star blue")


def test_a_picture_that_is_no_scene_is_an_error() -> None:
    editor = ProceduralEditor()
    with pytest.raises(EditorError, match="96"):
        editor.edit(np.zeros((10, 10, 3), np.uint8), "erase the star", seed=0)
    with pytest.raises(EditorError, match="no drawing"):
        editor.edit(np.zeros((96, 96, 3), np.uint8), "erase the star", seed=0)


def test_a_personality_in_yaml_changes_only_what_it_names() -> None:
    options = {"verbs": {"paint": 0.1}, "keep_clauses": {"hands off": 0.0}, "max_words": 30}
    quirks = plugins.typed(Quirks, options, where="editor.options")
    assert ProceduralEditor(quirks).settings()["verbs"] == {**Quirks().verbs, "paint": 0.1}
    assert quirks.keep_clauses == {**Quirks().keep_clauses, "hands off": 0.0}


@pytest.mark.parametrize(
    "quirks",
    [Quirks(harm=1.5), Quirks(keep_clauses={"x": -0.1}), Quirks(verbs={"paint": 0.5}), Quirks(max_words=-1)],
)
def test_impossible_quirks_are_refused(quirks: Quirks) -> None:
    with pytest.raises(ConfigError):
        ProceduralEditor(quirks)


def test_a_misspelt_verb_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'paint'"):
        ProceduralEditor(Quirks(verbs={**Quirks().verbs, "pain": 0.5}))

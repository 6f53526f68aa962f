from pathlib import Path

import numpy as np
import pytest
from benchmark_judge import FIXTURES

from thinkedit.envs.images import read_rgb
from thinkedit.errors import ConfigError, DataError
from thinkedit.evals.benchmarks.arms import Course, Step, open_arm, stored_arms
from thinkedit.evals.benchmarks.imgedit import ImgEdit

BENCHMARK = ImgEdit(FIXTURES / "imgedit")
TURNS = ["1", "2", "3", "final"]
ABOUT = {"editor": {"name": "procedural", "settings": {"steps": 3}}, "seed": 0}


def course(edits: int, chosen: int) -> Course:
    images = [np.full((4, 4, 3), 10 * k, np.uint8) for k in range(edits)]
    return Course(images=images, steps=[Step(prompt=f"p{k}") for k in range(edits)], chosen=chosen, stop="x")


def shades(root: Path, item: int) -> list[int]:
    arm = open_arm(root, "a", ABOUT, TURNS)
    paths = [arm.picture(BENCHMARK, BENCHMARK.items[item], turn) for turn in TURNS]
    return [int(read_rgb(path)[0, 0, 0]) for path in paths if path]


def test_an_early_stop_is_filled_forward(tmp_path: Path) -> None:
    arm = open_arm(tmp_path, "a", ABOUT, TURNS)
    arm.write(BENCHMARK, BENCHMARK.items[0], course(3, 2))
    arm.write(BENCHMARK, BENCHMARK.items[1], course(2, 1))
    arm.write(BENCHMARK, BENCHMARK.items[2], course(1, 0))
    assert shades(tmp_path, 0) == [0, 10, 20, 20]
    assert shades(tmp_path, 1) == [0, 10, 10, 10]
    assert shades(tmp_path, 2) == [0, 0, 0, 0]
    assert shades(tmp_path, 3) == []  # nobody made it
    assert (tmp_path / "a" / "turn3" / "gen_image" / "12.png").is_file()
    assert (tmp_path / "a" / "final" / "gen_image" / "12.png").is_file()


def test_the_result_may_be_an_earlier_edit(tmp_path: Path) -> None:
    open_arm(tmp_path, "a", ABOUT, TURNS).write(BENCHMARK, BENCHMARK.items[0], course(3, 1))
    assert shades(tmp_path, 0) == [0, 10, 20, 10]


def test_an_item_without_its_record_is_not_there(tmp_path: Path) -> None:
    """A killed run may leave pictures of some turns; the record is written last."""
    arm = open_arm(tmp_path, "a", ABOUT, TURNS)
    arm.write(BENCHMARK, BENCHMARK.items[0], course(3, 2))
    [record] = (tmp_path / "a" / "items").iterdir()
    record.unlink()
    assert shades(tmp_path, 0) == []


def test_results_of_another_editor_are_not_gone_on_with(tmp_path: Path) -> None:
    open_arm(tmp_path, "a", ABOUT, TURNS)
    open_arm(tmp_path, "a", ABOUT, TURNS)
    with pytest.raises(ConfigError, match=r"made otherwise \(seed differ\)"):
        open_arm(tmp_path, "a", ABOUT | {"seed": 1}, TURNS)
    with pytest.raises(ConfigError, match="turns differ"):
        open_arm(tmp_path, "a", ABOUT, TURNS[1:])
    for name in ("", "a/b", "..", ".hidden"):
        with pytest.raises(ConfigError, match="becomes a folder's"):
            open_arm(tmp_path, name, ABOUT, TURNS)


def test_stored_arms_are_found_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        open_arm(tmp_path, name, ABOUT, TURNS)
    assert [arm.name for arm in stored_arms(tmp_path)] == ["a", "b"]
    (tmp_path / "a" / "arm.json").write_text("[]")
    with pytest.raises(DataError, match=r"arm\.json"):
        stored_arms(tmp_path)

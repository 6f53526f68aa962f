from pathlib import Path

import numpy as np
import pytest
from benchmark_judge import FIXTURES
from PIL import Image

from thinkedit.envs.images import read_rgb
from thinkedit.errors import ConfigError, DataError
from thinkedit.evals.benchmarks.arms import Course, Step, open_arm, stored_arms
from thinkedit.evals.benchmarks.gedit import GEdit
from thinkedit.evals.benchmarks.imgedit import ImgEdit
from thinkedit.evals.benchmarks.krisbench import KRISBench

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


def test_the_official_gedit_script_finds_the_source_beside_each_result(tmp_path: Path) -> None:
    """It opens both files by these names, and skips an item that lacks one."""
    benchmark = GEdit(FIXTURES / "gedit")
    item = benchmark.items[1]
    open_arm(tmp_path, "a", ABOUT, TURNS).write(benchmark, item, course(2, 1))
    for turn in ("turn1", "turn2", "turn3", "final"):
        folder = tmp_path / "a" / turn / "fullset" / "subject-add" / "cn"
        assert {path.name for path in folder.iterdir()} == {"subject-add-1.png", "subject-add-1_SRCIMG.png"}
        assert (read_rgb(folder / "subject-add-1_SRCIMG.png") == item.source()).all()


def test_the_official_kris_script_finds_a_jpeg_and_the_judge_sees_the_png(tmp_path: Path) -> None:
    benchmark = KRISBench(FIXTURES / "krisbench")
    item = next(item for item in benchmark.items if item.id == "biology/1")
    arm = open_arm(tmp_path, "a", ABOUT, TURNS)
    image = item.source()
    arm.write(benchmark, item, Course(images=[image], steps=[Step(prompt="p")], chosen=0, stop="x"))
    folder = tmp_path / "a" / "final" / "biology"
    assert {path.name for path in folder.iterdir()} == {"1.jpg", "1.png"}
    with Image.open(folder / "1.jpg") as jpeg:
        assert jpeg.format == "JPEG"
        assert {component[1:3] for component in jpeg.layer} == {(1, 1)}  # colours at full resolution
        assert {value for table in jpeg.quantization.values() for value in table} == {1}  # the best there is
    found = arm.picture(benchmark, item, "final")
    assert found == folder / "1.png"
    assert (read_rgb(found) == image).all()


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

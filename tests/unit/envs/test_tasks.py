"""Task sources: the world's own and a user's files."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thinkedit.envs.tasks import SPLITS, FileTasks, FileTasksConfig
from thinkedit.envs.world import read_scene
from thinkedit.envs.world.instructions import OPERATIONS, REFERENCE_KINDS
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.envs.world.tasks import WorldTasks, WorldTasksConfig, split_of
from thinkedit.errors import ConfigError, DataError, UnknownName


def test_the_same_split_and_index_give_the_same_task_in_a_new_source() -> None:
    one, two = WorldTasks().task("val", 7), WorldTasks().task("val", 7)
    assert one.uid == two.uid
    assert one.instruction == two.instruction
    assert np.array_equal(one.source, two.source)


def test_pictures_and_instructions_are_the_same_on_every_machine() -> None:
    task = WorldTasks().task("test", 0)
    assert task.instruction == "replace the blue shape with a purple circle"
    assert read_scene(task.source).scene.canonical == (
        "right small red star; bottom big green square; bottom-right small blue star"
    )


def test_other_indices_seeds_and_options_give_other_tasks() -> None:
    tasks = [
        WorldTasks().task("test", 0),
        WorldTasks().task("test", 1),
        WorldTasks(WorldTasksConfig(seed=1)).task("test", 0),
        WorldTasks(WorldTasksConfig(objects=[4])).task("test", 0),
    ]
    assert len({task.uid for task in tasks}) == 4
    assert len({task.source.tobytes() for task in tasks}) == 4


def test_no_task_scores_before_it_is_done() -> None:
    judge, tasks = WorldJudge(), WorldTasks()
    for index in range(60):
        task = tasks.task("train", index)
        scores = judge.judge(task.source, task.source, task.instruction).scores
        assert (scores.semantic, scores.quality) == (0, 10)


def test_all_operations_and_reference_kinds_occur_in_about_their_shares() -> None:
    tasks = [WorldTasks().task("sft", index) for index in range(400)]
    operations = Counter(task.task_type for task in tasks)
    assert set(operations) == set(OPERATIONS)
    assert all(0.13 < count / 400 < 0.27 for count in operations.values())
    kinds = Counter(task.reference["kind"] for task in tasks if task.task_type != "add")
    assert set(kinds) == set(REFERENCE_KINDS)
    assert kinds["indirect"] > kinds["explicit"] > kinds["ambiguous"]


def test_shares_can_be_set_and_zero_leaves_out() -> None:
    config = WorldTasksConfig(
        operations={**dict.fromkeys(OPERATIONS, 0.0), "move": 1.0},
        references={**dict.fromkeys(REFERENCE_KINDS, 0.0), "odd_one_out": 2.0},
    )
    for index in range(20):
        task = WorldTasks(config).task("test", index)
        assert task.task_type == "move"
        assert "the odd one out" in task.instruction


@pytest.mark.parametrize(
    "config",
    [
        WorldTasksConfig(objects=[]),
        WorldTasksConfig(objects=[1, 3]),
        WorldTasksConfig(operations=dict.fromkeys(OPERATIONS, 0.0)),
        WorldTasksConfig(references={"explicit": -1.0}),
        WorldTasksConfig(operations={"paint": 1.0}),
    ],
)
def test_options_that_cannot_be_met_are_refused(config: WorldTasksConfig) -> None:
    with pytest.raises(ConfigError):
        WorldTasks(config)


def test_a_combination_that_no_scene_has_is_an_error_and_not_an_endless_search() -> None:
    config = WorldTasksConfig(operations={"remove": 1.0}, objects=[2])
    with pytest.raises(ConfigError, match="no scene"):
        WorldTasks(config).task("train", 0)


def test_unknown_splits_and_negative_indices_are_refused() -> None:
    with pytest.raises(UnknownName, match="'train'"):
        WorldTasks().task("trian", 0)
    with pytest.raises(IndexError):
        WorldTasks().task("train", -1)
    assert WorldTasks().size("train") is None


def test_every_split_has_scenes_of_its_own() -> None:
    for split in SPLITS:
        scene = read_scene(WorldTasks().task(split, 0).source).scene
        assert split_of(scene) == split


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[list[dict[str, Any]]], FileTasks]:
    for k in range(40):
        pixels = np.full((6 + k, 8, 3), k, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")

    def write(records: list[dict[str, Any]]) -> FileTasks:
        path = tmp_path / "tasks.jsonl"
        path.write_text("\n".join(json.dumps(record) for record in records))
        return FileTasks(FileTasksConfig(path=str(path)))

    return write


Folder = Callable[[list[dict[str, Any]]], FileTasks]


def test_own_pictures_become_tasks(folder: Folder) -> None:
    record = {
        "image": "3.png",
        "instruction": "add a lamp",
        "uid": "a",
        "task_type": "add",
        "split": "val",
        "by": "me",
    }
    tasks = folder([record])
    task = tasks.task("val", 0)
    assert (task.uid, task.instruction, task.task_type, task.split) == ("a", "add a lamp", "add", "val")
    assert task.source.shape == (9, 8, 3)
    assert task.reference == {"by": "me"}
    assert (tasks.size("val"), tasks.size("train")) == (1, 0)
    with pytest.raises(IndexError):
        tasks.task("val", 1)


def test_records_without_a_split_get_one_by_their_picture(folder: Folder) -> None:
    records = [{"image": f"{k}.png", "instruction": text} for k in range(40) for text in ("a", "b")]
    tasks = folder(records)
    sizes = {split: tasks.size(split) or 0 for split in SPLITS}
    assert sum(sizes.values()) == 80
    assert sizes["train"] > 0
    homes: dict[bytes, set[str]] = {}
    for split in SPLITS:
        for index in range(sizes[split]):
            homes.setdefault(tasks.task(split, index).source.tobytes(), set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())


def test_a_task_keeps_its_uid_where_its_line_moves(folder: Folder) -> None:
    a, b = ({"image": "3.png", "instruction": text, "split": "train"} for text in ("a", "b"))
    new = {"image": "4.png", "instruction": "a", "split": "train"}
    uids = []
    for records in ([a, b, a], [new, b, a, new, a]):
        tasks = folder(records)
        uids.append([tasks.uid("train", index) for index in range(len(records))])
        assert uids[-1] == [tasks.task("train", index).uid for index in range(len(records))]
    (first, second, again), (_, moved, *later) = uids
    assert (moved, later[0], later[2]) == (second, first, again)
    assert len({*uids[0], *uids[1]}) == 5  # a pair that is there twice is two tasks
    assert WorldTasks().uid("val", 3) == WorldTasks().task("val", 3).uid


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"image": "0.png"}, "tasks.jsonl:2: instruction"),
        ({"image": "0.png", "instruction": " "}, "tasks.jsonl:2: instruction"),
        ({"image": "0.png", "instruction": "write \ud83d"}, "tasks.jsonl:2: instruction: half a character"),
        ({"image": "none.png", "instruction": "x"}, "tasks.jsonl:2: image"),
        ({"image": "0.png", "instruction": "x", "split": "tset"}, "tset"),
        ({"image": "1.png", "instruction": "x", "split": "val"}, "'train' and 'val'"),
        ({"image": "0.png", "instruction": "x", "uid": "u"}, "used twice"),
    ],
)
def test_a_bad_record_is_named_by_file_line_and_field(
    folder: Folder, record: dict[str, Any], says: str
) -> None:
    good = {"image": "1.png", "instruction": "x", "split": "train", "uid": "u"}
    with pytest.raises(DataError, match=says):
        folder([good, record]).size("train")


def test_a_line_ends_where_jsonl_says(folder: Folder, tmp_path: Path) -> None:
    tasks, text = folder([]), "add\u2028a\x85lamp"
    record = json.dumps({"image": "3.png", "instruction": text, "split": "val"}, ensure_ascii=False)
    (tmp_path / "tasks.jsonl").write_text(f"{record}\r\n\n{record}\n", encoding="utf-8")
    assert [tasks.task("val", index).instruction for index in range(2)] == [text] * 2


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        FileTasks(FileTasksConfig(path=str(tmp_path / "nothing.jsonl"))).size("train")

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from thinkedit.data.formats.trajectories import read_trajectories
from thinkedit.errors import DataError

GOOD: dict[str, Any] = {
    "trajectory_id": "t1",
    "task_type": "add",
    "instruction": "add a lamp",
    "source_image": "src.png",
    "steps": [
        {
            "prompt": "add a lamp",
            "image": "e0.png",
            "score": {"semantic": 6, "quality": 5.5},
            "expert": {"reason": "it floats", "next_prompt": "add a lamp on the desk", "stop": False},
        },
        {"prompt": "add a lamp on the desk", "image": "e1.png", "score": None, "expert": None},
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one field set, or (value is ...) deleted."""
    record = json.loads(json.dumps(GOOD))
    *way, last = path.split(".")
    place = record
    for key in way:
        place = place[int(key)] if key.isdigit() else place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return record


def test_the_documented_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    (found,) = read_trajectories(path)
    trajectory = found.trajectory
    assert trajectory.trajectory_id == "t1"
    assert trajectory.steps[0].score is not None
    assert trajectory.steps[0].score.overall == pytest.approx(33**0.5)  # sqrt(6 * 5.5)
    assert trajectory.steps[1].score is None
    assert trajectory.steps[0].expert is not None
    assert trajectory.steps[0].expert.next_prompt == "add a lamp on the desk"


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**GOOD, "somebody": "else's"}))
    assert len(list(read_trajectories(path))) == 1


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("trajectory_id", ..., "trajectory_id"),
        ("instruction", " ", "instruction"),
        ("steps", [], "steps"),
        ("steps.0.prompt", ..., r"steps\[0\].prompt"),
        ("steps.0.score", ..., r"steps\[0\].score"),  # a typing mistake must not pass for "not graded"
        ("steps.0.expert", ..., r"steps\[0\].expert"),
        ("steps.0.score.semantic", 10.1, r"steps\[0\].score.semantic"),
        ("steps.0.score.semantic", True, r"steps\[0\].score.semantic"),
        ("steps.0.score.quality", "5", r"steps\[0\].score.quality"),
        ("steps.0.score.quality", None, r"steps\[0\].score.quality"),
        ("steps.0.expert.stop", 1, r"steps\[0\].expert.stop"),
        ("steps.1.image", 7, r"steps\[1\].image"),
    ],
)
def test_a_fault_is_told_with_line_and_field(tmp_path: Path, path: str, value: Any, field: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(changed(path, value)) + "\n")
    with pytest.raises(DataError, match=rf"t\.jsonl:3: {field}: "):
        list(read_trajectories(file))


@pytest.mark.parametrize("line", ["{", "null", "[]", '{"a": NaN}', "\udcff"])
def test_no_json_object_is_told_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(line.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"t\.jsonl:1: "):
        list(read_trajectories(file))


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({**GOOD, "trajectory_id": name}))
    assert [found.trajectory.trajectory_id for found in read_trajectories(tmp_path)] == ["a", "b"]


def test_an_empty_folder_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.jsonl file"):
        list(read_trajectories(tmp_path))

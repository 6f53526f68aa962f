"""Files of replies that somebody wrote by hand, and our own with all that judges write in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_judge import FIXTURES

from thinkedit.errors import DataError
from thinkedit.evals.benchmarks.arms import Course, Step, open_arm
from thinkedit.evals.benchmarks.imgedit import CRITERIA, ImgEdit
from thinkedit.evals.benchmarks.replay import read_replies, write_replies
from thinkedit.evals.benchmarks.results import Results
from thinkedit.evals.benchmarks.run import replay
from thinkedit.evals.benchmarks.store import Row

BENCHMARK = ImgEdit(FIXTURES / "imgedit")


def reply(item: str, mark: int) -> str:
    kind = next(found.kind for found in BENCHMARK.items if found.id == item)
    return "\n".join(f"{name}: {mark}" for name in CRITERIA[kind])


def counted(file: Path, lines: list[dict[str, Any]], **options: Any) -> tuple[Results, Path]:
    file.write_text("\n".join(json.dumps({"metric": "criteria", **line}) for line in lines))
    return replay(BENCHMARK, file, options.get("arms", []), file.parent / "out", resamples=50, seed=0)


def test_a_reply_may_hold_any_line_separator(tmp_path: Path) -> None:
    """U+2028 and U+0085 end a line for str.splitlines(), and not in JSON."""
    written = Row(arm="a", item="11", turn="final", metric="criteria", reply="one\u2028two\x85three\x0cfour")
    write_replies(tmp_path / "replies.jsonl", [written])
    assert read_replies(tmp_path / "replies.jsonl", BENCHMARK) == {"a": [written]}


def test_turns_may_be_left_out(tmp_path: Path) -> None:
    """Turn 3 stands in its own column, and the first two edits of an item that stopped are shown."""
    marks = {"1": 2, "3": 4, "final": 4}
    lines = [
        {"arm": "a", "item": item.id, "turn": turn, "reply": reply(item.id, mark)}
        for item in BENCHMARK.items
        for turn, mark in marks.items()
    ]
    arm = open_arm(tmp_path / "arms", "a", {}, ["1", "2", "3", "final"])
    for item in BENCHMARK.items:
        steps = [Step(prompt="p"), Step(prompt="q")]
        arm.write(BENCHMARK, item, Course(images=[item.source()] * 2, steps=steps, chosen=1, stop="accepted"))
    _, folder = counted(tmp_path / "replies.jsonl", lines, arms=[arm])
    text = (folder / "tables.md").read_text()
    assert "| turn 1 | turn 3 | gain from turn 1 to the end |" in text
    assert "| a | measured | 2.00 [2.00, 2.00] | 4.00 [4.00, 4.00] | +2.00 [+2.00, +2.00] |" in text


def test_no_gain_is_named_from_turn_1_without_turn_1(tmp_path: Path) -> None:
    lines = [
        {"item": item.id, "turn": turn, "reply": reply(item.id, int(turn))}
        for item in BENCHMARK.items
        for turn in ("2", "3")
    ]
    lines += [{**line, "turn": "final"} for line in lines if line["turn"] == "3"]
    results, _ = counted(tmp_path / "replies.jsonl", lines)
    assert results.arms[0].gains == {"imgedit": None}


@pytest.mark.parametrize("turn", ["0", "01", "last", "-1"])
def test_turns_are_numbers_from_1(turn: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="turns are 1, 2, … and final"):
        counted(tmp_path / "replies.jsonl", [{"item": "11", "turn": turn, "reply": "hm"}])

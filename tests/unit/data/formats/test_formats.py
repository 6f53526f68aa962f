"""Every format says the same after a round trip, and refuses what it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thinkedit.data.formats import records, reference
from thinkedit.data.formats.chat import (
    ChatParquetWriter,
    SharegptWriter,
    example_of,
    read_chat_parquet,
    read_sharegpt,
)
from thinkedit.data.formats.records import Editor, Expert, ImageRef, Record, Score, read_records
from thinkedit.data.formats.reference import read_reference, row_of
from thinkedit.data.formats.verl import VerlWriter, read_verl
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import DataError
from thinkedit.types import Critique, Scores

PROTOCOL = Protocol()

RECORD = Record(
    uid="t1/0",
    trajectory_id="t1",
    step=0,
    n_steps=2,
    task_type="recolour",
    source_dataset="mine",
    editor=Editor(name="http", revision="2", config={"steps": 28}, seed=7),
    source_image=ImageRef(path="/data/src.png", sha256="0" * 64, width=40, height=30),
    edited_image=ImageRef(path="/data/edit.png"),
    instruction="Make the fence white",
    prompt="Repaint the fence <image> in white",
    score=Score.of(6, 7, "viescore@1/gpt", "abc"),
    expert=Expert(model="gpt", reason="Only half of it is white.", next_prompt="Paint all of it", stop=False),
    kind="refine",
    answer="Paint all of it",
    split="sft",
)
STATE = msgspec.structs.replace(RECORD, kind=None, answer=None, split="rl")


def test_records_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(records.encode(RECORD) + b"\n" + records.encode(STATE) + b"\n")
    assert list(read_records(path)) == [RECORD, STATE]


def test_relative_images_are_relative_to_the_file(tmp_path: Path) -> None:
    record = msgspec.structs.replace(RECORD, edited_image=ImageRef(path="pictures/e.png"))
    path = tmp_path / "records.jsonl"
    path.write_bytes(records.encode(record))
    (found,) = read_records(path)
    assert found.edited_image.path == str(tmp_path / "pictures/e.png")
    assert found.source_image.path == "/data/src.png"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": None}, "go together"),
        ({"expert": None}, "reasoning"),
        ({"score": {"semantic": 6, "quality": 7, "overall": 7}}, "overall is 7, but .* is 6.481"),
        ({"score": {"semantic": 6, "quality": 11, "overall": 6}}, r"score.quality"),
        ({"source_image": {"path": "a", "sha256": "xyz"}}, r"source_image.sha256"),
        ({"split": "train"}, "split"),
        ({"n_steps": 0}, "n_steps"),
        ({"uid": ""}, "uid"),
    ],
)
def test_records_are_checked(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    value = {**json.loads(records.encode(RECORD)), **change}
    path = tmp_path / "records.jsonl"
    path.write_text("\n" + json.dumps(value))
    with pytest.raises(DataError, match=rf"records\.jsonl:2: .*{field}"):
        list(read_records(path))


# --- LLaMA-Factory


def test_an_example_is_what_the_policy_sees_and_should_say() -> None:
    example = example_of(RECORD, PROTOCOL)
    user, assistant = example.messages
    assert user.content.startswith("<image><image>")
    assert user.content.count("<image>") == 2  # the one in the user's text is shown, not a third slot
    assert "Make the fence white" in user.content
    assert PROTOCOL.parse(assistant.content) == Critique(
        "Only half of it is white.", Scores(6, 7), "Paint all of it"
    )
    assert example.images == ("/data/src.png", "/data/edit.png")


def test_a_state_has_nothing_to_say() -> None:
    with pytest.raises(DataError, match="no answer"):
        example_of(STATE, PROTOCOL)


@pytest.mark.parametrize(
    ("Writer", "read"), [(SharegptWriter, read_sharegpt), (ChatParquetWriter, read_chat_parquet)]
)
def test_examples_come_back_whole(tmp_path: Path, Writer: Any, read: Any) -> None:
    example = example_of(RECORD, PROTOCOL)
    path = tmp_path / "examples"
    writer = Writer(path)
    for _ in range(3):
        writer.write(example)
    writer.close()
    found = list(read(path))
    assert [(e.messages, e.images) for e in found] == [(example.messages, example.images)] * 3


def test_llamafactory_reads_the_columns_it_wants(tmp_path: Path) -> None:
    path = tmp_path / "sft_train.json"
    writer = SharegptWriter(path)
    writer.write(example_of(RECORD, PROTOCOL))
    writer.close()
    (row,) = json.loads(path.read_text())
    assert set(row) == {"messages", "images"}
    assert [set(message) for message in row["messages"]] == [{"role", "content"}] * 2


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "sft_train.json"
    SharegptWriter(path).close()
    assert json.loads(path.read_text()) == []


CHAT: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "<image><image>\nlook"},
        {"role": "assistant", "content": "<think>a</think>"},
    ],
    "images": ["/a.png", "b.png"],
}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"images": ["/a.png"]}, "images: 1 for 2 <image> placeholders"),
        ({"images": ["/a.png", 5]}, r"images\[1\]"),
        ({"messages": CHAT["messages"][:1]}, "messages: Expected `array` of length >= 2"),
        ({"messages": CHAT["messages"][::-1]}, "expected one of the user and one of the assistant"),
        ({"messages": [CHAT["messages"][0], {"role": "assistant", "content": ""}]}, r"messages\[1\].content"),
        ({"messages": [CHAT["messages"][0], {"role": "gpt", "content": "x"}]}, r"messages\[1\].role"),
    ],
)
def test_sharegpt_is_checked(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    path = tmp_path / "sft.json"
    path.write_text(json.dumps([CHAT, {**CHAT, **change}], indent=1))
    line = path.read_text()[: path.read_text().index("},\n {") + 2].count("\n") + 2
    with pytest.raises(DataError, match=what) as error:
        list(read_sharegpt(path))
    assert str(error.value).startswith(f"{path}:{line}: ")


def test_sharegpt_images_may_be_relative(tmp_path: Path) -> None:
    path = tmp_path / "sft.json"
    path.write_text(json.dumps([CHAT]))
    (example,) = read_sharegpt(path)
    assert example.images == ("/a.png", str(tmp_path / "b.png"))


# --- the reference's rl_train.jsonl

LINE: dict[str, Any] = {
    "origin_prompt": "Make the fence white",
    "rewritten_prompt": "Repaint the fence",
    "origin_image_path": "images/src/1.png",
    "edited_image_path": "/abs/1_turn2.png",
    "evaluation": {"semantics": 6, "quality": 7, "overall": 6.48},
}


def test_a_reference_line_becomes_a_state(tmp_path: Path) -> None:
    path = tmp_path / "rl_train.jsonl"
    path.write_text(json.dumps({**LINE, "turn": 2}) + "\n")
    (record,) = read_reference(path)
    assert record.uid == "rl_train/1"
    assert (record.instruction, record.prompt) == ("Make the fence white", "Repaint the fence")
    assert record.source_image.path == str(tmp_path / "images/src/1.png")
    assert record.edited_image.path == "/abs/1_turn2.png"
    assert (record.score.semantic, record.score.quality) == (6, 7)
    assert record.score.overall == pytest.approx(42**0.5)
    assert record.score.judge_id is None


def test_reference_images_may_lie_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "rl_train.jsonl"
    path.write_text(json.dumps(LINE))
    (record,) = read_reference(path, Path("/pictures"))
    assert record.source_image.path == "/pictures/images/src/1.png"


def test_reference_lines_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "rl_train.jsonl"
    path.write_bytes(reference.encode(row_of(STATE)))
    assert json.loads(path.read_text())["evaluation"] == {"semantics": 6, "quality": 7, "overall": 6.48}
    (record,) = read_reference(path)
    assert row_of(record) == row_of(STATE)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rewritten_prompt": None}, "rewritten_prompt"),
        ({"evaluation": {"semantics": 6}}, "evaluation.quality: this required field is missing"),
        ({"evaluation": {"semantics": 6, "quality": 70}}, "evaluation.quality"),
        ({"evaluation": 6}, "evaluation"),
    ],
)
def test_reference_lines_are_checked(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    path = tmp_path / "rl_train.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps({**LINE, **change}))
    with pytest.raises(DataError, match=rf"rl_train\.jsonl:2: {field}"):
        list(read_reference(path))


# --- verl


def test_verl_rows_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "rl.parquet"
    writer = VerlWriter(path, PROTOCOL)
    for _ in range(3):
        writer.write(STATE)
    writer.close()
    assert list(read_verl(path)) == [STATE] * 3
    row = pq.read_table(path).to_pylist()[1]
    assert row["images"] == [{"image": "/data/src.png"}, {"image": "/data/edit.png"}]
    assert row["prompt"][0]["content"].count("<image>") == 2
    assert json.loads(row["reward_model"]["ground_truth"]) == {"semantic": 6, "quality": 7}
    assert row["extra_info"]["index"] == 1


def test_verl_tables_of_others_say_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    rows = [{"prompt": [], "images": [], "reward_model": {"a": 1}, "extra_info": {"index": 0}}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match=r"other\.parquet row 1: extra_info.record"):
        list(read_verl(path))
    pq.write_table(pa.Table.from_pylist([rows[0] | {"extra_info": "a text"}]), path)
    with pytest.raises(DataError, match=r"other\.parquet row 1: extra_info.record"):
        list(read_verl(path))
    pq.write_table(pa.table({"prompt": ["x"]}), path)
    with pytest.raises(DataError, match=r"other\.parquet: images: this required column is missing"):
        list(read_verl(path))


@pytest.mark.parametrize(
    ("held", "what"),
    [
        ("{", "Input data was truncated"),
        ('{"uid": "a"}', "instruction: this required field is missing"),
        (records.encode(STATE).decode().replace('"semantic":6', '"semantic":60'), "score.semantic: Expected"),
    ],
)
def test_a_bad_record_inside_a_verl_row_is_told(tmp_path: Path, held: str, what: str) -> None:
    path = tmp_path / "rl.parquet"
    row = {"prompt": [], "images": [], "reward_model": {"a": 1}, "extra_info": {"record": held}}
    pq.write_table(pa.Table.from_pylist([row]), path)
    with pytest.raises(DataError, match=rf"rl\.parquet row 1: extra_info\.record: {what}"):
        list(read_verl(path))


def test_no_parquet_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("no")
    with pytest.raises(DataError, match=r"x\.parquet"):
        list(read_verl(path))


def test_parquet_examples_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "sft.parquet"
    pq.write_table(pa.Table.from_pylist([{**CHAT, "images": [{"image": "/a.png"}]}]), path)
    with pytest.raises(DataError, match=r"sft\.parquet row 1: images: 1 for 2"):
        list(read_chat_parquet(path))


def test_pictures_inside_a_parquet_have_no_path(tmp_path: Path) -> None:
    path = tmp_path / "sft.parquet"
    pq.write_table(pa.Table.from_pylist([{**CHAT, "images": [{"bytes": b"x"}] * 2}]), path)
    with pytest.raises(DataError, match=r"sft\.parquet row 1: images\[0\]"):
        list(read_chat_parquet(path))

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trajectory_files import overall, write

from thinkedit.configs.schema import DataConfig
from thinkedit.data.build import build
from thinkedit.data.convert import convert, read_any, write_sft_table
from thinkedit.data.formats.chat import read_chat_parquet
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import DataError, UnknownName

PROTOCOL = Protocol()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    trajectories = [overall(5, 8 if n < 4 else 6, uid=f"t{n}", source=f"{n}.png") for n in range(12)]
    source = write(folder / "t.jsonl", trajectories)
    rules = DataConfig(rl_trajectories=4, rl_min_variance=1.0, balance_share=1.0)
    build(source, folder / "out", rules, PROTOCOL)
    return folder / "out"


@pytest.mark.parametrize(
    ("source", "source_format", "target_format", "same_as"),
    [
        ("records/sft.jsonl", "records", "sharegpt", "sft_train.json"),
        ("records/sft.jsonl", "records", "verl-sft", "verl/sft.parquet"),
        ("records/rl.jsonl", "records", "reference", "rl_train.jsonl"),
        ("records/rl.jsonl", "records", "verl-rl", "verl/rl.parquet"),
        ("verl/rl.parquet", "verl-rl", "records", "records/rl.jsonl"),
        ("verl/rl.parquet", "verl-rl", "reference", "rl_train.jsonl"),
        ("rl_train.jsonl", "reference", "reference", "rl_train.jsonl"),
        ("verl/sft.parquet", "verl-sft", "sharegpt", "sft_train.json"),
        ("sft_train.json", "sharegpt", "sharegpt", "sft_train.json"),
    ],
)
def test_converted_is_what_build_data_writes(
    out: Path, tmp_path: Path, source: str, source_format: str, target_format: str, same_as: str
) -> None:
    target = tmp_path / "target"
    count = convert(out / source, source_format, target, target_format, PROTOCOL)
    assert count > 0
    assert target.read_bytes() == (out / same_as).read_bytes()


def test_an_example_is_no_record(out: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't become records"):
        convert(out / "sft_train.json", "sharegpt", tmp_path / "x", "records", PROTOCOL)
    assert list(tmp_path.iterdir()) == []


def test_a_state_is_no_example(out: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no answer"):
        convert(out / "records/rl.jsonl", "records", tmp_path / "x", "sharegpt", PROTOCOL)


def test_formats_are_known_by_name(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="sharegpt"):
        read_any(out / "sft_train.json", "sharegtp")
    with pytest.raises(UnknownName, match="records"):
        convert(out / "records/rl.jsonl", "records", tmp_path / "x", "record", PROTOCOL)


@pytest.mark.parametrize("source", ["sft_train.json", "records/sft.jsonl", "verl/sft.parquet"])
def test_sft_reads_each_of_them(out: Path, tmp_path: Path, source: str) -> None:
    target = tmp_path / "deep" / "table.parquet"
    count = write_sft_table(out / source, target, PROTOCOL)
    found = [(e.messages, e.images) for e in read_chat_parquet(target)]
    assert len(found) == count
    assert found == [(e.messages, e.images) for e in read_chat_parquet(out / "verl/sft.parquet")]


def test_sft_reads_a_file_that_others_published(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "<image><image>\nJudge this edit."},
            {"role": "assistant", "content": "<think>a</think>"},
        ],
        "images": ["src/1.png", "edit/1.png"],
        "source": "somewhere",
    }
    published = tmp_path / "sft_train.json"
    published.write_text(json.dumps([row] * 3, indent=2))
    assert write_sft_table(published, tmp_path / "t.parquet", PROTOCOL) == 3
    (example, *_) = read_chat_parquet(tmp_path / "t.parquet")
    assert example.images == (str(tmp_path / "src/1.png"), str(tmp_path / "edit/1.png"))
    assert example.messages[0].content == row["messages"][0]["content"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.json, \.jsonl, \.parquet"):
        write_sft_table(tmp_path / "x.csv", tmp_path / "t.parquet", PROTOCOL)

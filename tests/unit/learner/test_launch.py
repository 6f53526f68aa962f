"""Following a training process: every line once, and errors with what it said last."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from thinkedit.learner.launch import (
    NewLines,
    TrainingFailed,
    append_metrics,
    export_policy,
    follow,
    latest_checkpoint,
    scratch_folder,
    step_of,
)

WRITE_TWO_STEPS = """
import json, sys
with open("metrics.jsonl", "a") as file:
    for step in (1, 2):
        file.write(json.dumps({"step": step}) + "\\n")
"""


def run(code: str, folder: Path) -> list[int]:
    seen: list[int] = []
    follow(
        [sys.executable, "-c", f"import os; os.chdir({str(folder)!r})\n{code}"],
        environment=dict(os.environ),
        run_dir=folder,
        on_step=lambda metrics: seen.append(int(metrics["step"])),
    )
    return seen


def test_each_step_is_reported_once_and_in_order(tmp_path: Path) -> None:
    assert run(WRITE_TWO_STEPS, tmp_path) == [1, 2]


def test_steps_of_an_earlier_start_are_not_reported_again(tmp_path: Path) -> None:
    append_metrics(tmp_path, 1, {})
    assert run("", tmp_path) == []


def test_a_failure_carries_the_last_lines_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="the editor is on fire"):
        run("raise SystemExit('the editor is on fire')", tmp_path)


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = NewLines(path)
    path.write_text('{"step": 1}\n{"st')
    assert reader.read() == ['{"step": 1}']
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert reader.read() == ['{"step": 2}']


def test_metrics_are_lines_of_json_with_step_and_time(tmp_path: Path) -> None:
    append_metrics(tmp_path, 3, {"reward/total/mean": 0.5})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["step"] == 3
    assert line["reward/total/mean"] == 0.5
    assert line["time"] > 0


def test_scratch_folders_are_short_and_gone_afterwards() -> None:
    with scratch_folder() as folder:
        # Ray puts sockets about 60 characters deep, and a socket's path holds at most 107.
        assert len(str(folder)) < 40
    assert not folder.exists()


def test_an_unfinished_run_has_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="no checkpoint"):
        latest_checkpoint(tmp_path)


def test_the_marker_names_the_newest_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("40")
    assert step_of(latest_checkpoint(tmp_path)) == 40


def test_an_exported_policy_takes_what_is_missing_from_its_base(tmp_path: Path) -> None:
    checkpoint, base = tmp_path / "global_step_1", tmp_path / "base"
    (checkpoint / "actor" / "huggingface").mkdir(parents=True)
    base.mkdir()
    exported = checkpoint / "actor" / "huggingface"
    save_file({"w": torch.full((2,), 2.0)}, exported / "model.safetensors")
    (exported / "config.json").write_text(
        '{"dtype": "bfloat16", "text_config": {"dtype": "bfloat16", "n": 1}}'
    )
    save_file({"w": torch.zeros(2)}, base / "model.safetensors")
    (base / "processor_config.json").write_text("{}")
    out = export_policy(checkpoint, base, tmp_path / "policy")
    assert load_file(out / "model.safetensors")["w"].tolist() == [2.0, 2.0]
    assert json.loads((out / "config.json").read_text()) == {
        "dtype": "float32",
        "text_config": {"dtype": "float32", "n": 1},
    }
    assert (out / "processor_config.json").exists()


def test_exporting_again_replaces_the_policy(tmp_path: Path) -> None:
    folder = tmp_path / "global_step_1" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    export_policy(folder.parent, "hub/name", tmp_path / "policy")
    (folder / "config.json").write_text("[]")
    assert (export_policy(folder.parent, "hub/name", tmp_path / "policy") / "config.json").read_text() == "[]"

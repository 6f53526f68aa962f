"""`thinkedit study --quick`: from nothing to the page, on the real stack."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl")

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]


def study(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from thinkedit.cli import app; app()"
    chosen = ["--quick", "--seeds", "1", "--only", "modes"]  # a second training would add minutes, no step
    return subprocess.run(
        [sys.executable, "-c", code, "study", f"run_dir={folder}", *chosen],
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_trains_plays_and_writes_a_page_and_then_has_nothing_left_to_do(tmp_path: Path) -> None:
    done = study(tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    cells = {path.stem: path for path in (tmp_path / "seed-0" / "cells").glob("*.jsonl")}
    assert set(cells) == {"rl", "rl_before", "rl_before_while"}
    rows = [json.loads(line) for line in cells["rl"].read_text().splitlines()]
    assert len(rows) == 8
    assert all(0 <= score <= 10 for row in rows for pair in row["judged"] for score in pair)
    assert (tmp_path / "seed-0" / "rl" / "grpo" / "policy").is_dir()
    page = tmp_path / "study.html"
    assert "Think before the edit, while editing, or both?" in page.read_text()
    assert "mean nothing" in page.read_text()

    for model in ("sft", "rl"):  # the cells alone can be counted anew
        shutil.rmtree(tmp_path / "seed-0" / model)
    written = {path: path.stat().st_mtime_ns for path in cells.values()}
    again = study(tmp_path)
    assert again.returncode == 0, again.stderr[-4000:]
    assert {path: path.stat().st_mtime_ns for path in cells.values()} == written
    assert not (tmp_path / "seed-0" / "sft").exists()

"""`thinkedit edit` with a policy in vLLM in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from thinkedit.envs.world.tasks import WorldTasks

pytest.importorskip("vllm")

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_policy_in_a_folder_is_asked_and_its_words_are_kept(tmp_path: Path) -> None:
    """The base looks and speaks but knows no critiques: a failure that says so, with the edit kept."""
    from thinkedit.learner.policy.shipped import copy_base

    task = WorldTasks().task("test", 7)
    Image.fromarray(task.source).save(tmp_path / "shapes.png")
    copy_base(tmp_path / "policy")
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-c",
                "from thinkedit.cli import app; app()",
                "edit",
                str(tmp_path / "shapes.png"),
            ),
            *(task.instruction, "inference.tries=2", "policy.max_reply_tokens=48"),
            *("--thinker", str(tmp_path / "policy"), "--out", str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "what the thinker says can't be read: edit 0 is the result" in done.stdout
    record = json.loads((tmp_path / "out" / "edit.json").read_text())
    assert record["stop"] == "thinker_unreadable"
    assert record["detail"].startswith("no reply of 2 could be read: missing_think: ")
    assert record["thinker"]["path"] == str(tmp_path / "policy")
    assert (tmp_path / "out" / "result.png").read_bytes() == (tmp_path / "out" / "edit_0.png").read_bytes()

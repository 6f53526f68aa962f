"""`thinkedit collect` is killed in the middle, again and again; no task is lost and none is there twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from thinkedit.data.formats.trajectories import read_trajectories

COUNT, KILLS = 400, 3


@pytest.mark.chaos
@pytest.mark.slow
def test_a_killed_collection_goes_on(tmp_path: Path) -> None:
    out, rng = tmp_path / "raw", random.Random(0)
    file = out / "trajectories-1-of-1.jsonl"
    command = [sys.executable, "-c", "from thinkedit.cli import app; app()", "collect", "--out", str(out)]
    command += ["--expert", "naive_expert", "--count", str(COUNT), "--edits", "3", "--concurrency", "8"]

    def lines() -> int:
        return file.read_bytes().count(b"\n") if file.exists() else 0

    for _ in range(KILLS):
        wanted = lines() + rng.randrange(10, 80)
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        while lines() < wanted:
            assert running.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    with open(file, "ab") as torn:
        torn.write(b'{"trajectory_id": "half a li')  # what a kill inside a write leaves
    last = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert last.returncode == 0, last.stderr
    assert "0 failed" in last.stdout

    found = [located.trajectory for located in read_trajectories(file)]
    assert Counter(t.index for t in found) == Counter(range(COUNT))
    assert len({t.trajectory_id for t in found}) == COUNT
    for trajectory in found:
        for image in (trajectory.source_image, *(step.image for step in trajectory.steps)):
            assert (out / image).stat().st_size > 0

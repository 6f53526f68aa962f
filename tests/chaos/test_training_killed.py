"""A rollout worker is killed in the midst of a real training: the run ends, and says why."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import slow_editor
from slow_editor import Line

from thinkedit.configs.load import load_config
from thinkedit.learner.grpo import run_grpo
from thinkedit.learner.launch import METRICS, TrainingFailed
from thinkedit.learner.policy.shipped import copy_base

pytestmark = [pytest.mark.chaos, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


def at_work(lines: Sequence[Line]) -> int | None:
    """A process with an edit begun and not ended."""
    ended = {line.edit for line in lines if line.moment == "end"}
    return next((line.pid for line in lines if line.edit not in ended), None)


class Killer(threading.Thread):
    """Kills the first process that it sees editing. moment: when; None as long as it hasn't."""

    def __init__(self, log: Path) -> None:
        super().__init__(daemon=True)
        self._log, self._over = log, threading.Event()
        self.moment: float | None = None

    def run(self) -> None:
        while not self._over.wait(0.01):
            if pid := at_work(slow_editor.record(self._log)):
                os.kill(pid, signal.SIGKILL)
                self.moment = time.monotonic()
                return

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def test_the_run_ends_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", slow_editor.install(tmp_path / "plugin"))
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    log, policy = tmp_path / "edits.log", tmp_path / "policy"
    copy_base(policy)
    config = load_config(
        "demo",
        [
            *("grpo.tasks_per_step=2", "grpo.group_size=2", "grpo.steps=1", "grpo.validate_every=0"),
            *("grpo.rehearsal.batch_size=0", "rollout.workers=2", "judge.canaries.every=0"),
            *("editor.name=slow", f"editor.options={{log: {log}}}"),
        ],
    )
    with (
        Killer(log) as killer,
        pytest.raises(TrainingFailed, match=r"rollout worker \d of 2 died") as failure,
    ):
        run_grpo(config, policy, tmp_path / "grpo")
    assert killer.moment is not None
    assert time.monotonic() - killer.moment < 60
    assert "Start the run again" in str(failure.value)
    assert not (tmp_path / "grpo" / METRICS).exists(), "no step was made of the rest"

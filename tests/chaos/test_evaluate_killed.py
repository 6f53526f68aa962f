"""Whole evaluations by the command, with the judge at the other end of real HTTP, killed midway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slow_editor
from benchmark_judge import FIXTURES, answering, pictures, question
from chat_server import ChatServer, Hangs
from typer.testing import CliRunner

from thinkedit.cli import app

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(900)]


def arguments(name: str, server: ChatServer, out: Path) -> list[str]:
    thinker = [] if name == "gedit" else ["--thinker", "naive_expert"]  # that one reads no Chinese
    return [
        *("evaluate", "--benchmark", name, "--data", str(FIXTURES / name), "--out", str(out), *thinker),
        *("judge=viescore", f"judge.options.base_url={server.base_url}"),
        *("judge.options.api_key_env=null", "judge.options.concurrency=2", "eval.bootstrap=100"),
    ]


def finish(name: str, server: ChatServer, out: Path) -> dict[str, str]:
    """Run to the end; what was written."""
    result = CliRunner().invoke(app, arguments(name, server, out))
    assert result.exit_code == 0, result.output
    [judged] = (out / "judges").iterdir()
    return {file: (judged / file).read_text() for file in ("figures.csv", "items.csv", "summary.json")}


def test_no_whole_item_is_edited_again_after_a_kill_while_editing(tmp_path: Path) -> None:
    """Killed with edits under way: what had its record stays, and the end is that of an unbroken run."""
    environment = os.environ | {"PYTHONPATH": slow_editor.install(tmp_path / "plugin")}

    def start(name: str) -> tuple[subprocess.Popen[bytes], Path, Path]:
        out, log = tmp_path / name, tmp_path / f"{name}.log"
        command = [sys.executable, "-c", "from thinkedit.cli import app; app()"]
        command += ["evaluate", "--benchmark", "world", "--thinker", "naive_expert", "--out", str(out)]
        command += ["editor.name=slow", f"editor.options.log={log}", "eval.tasks=6", "eval.bootstrap=100"]
        return subprocess.Popen([*command, "rollout.concurrency=2"], env=environment), out, log

    def edits(log: Path) -> int:
        return sum(line.moment == "begin" for line in slow_editor.record(log))

    def figures(out: Path) -> str:
        [judged] = (out / "judges").iterdir()
        return (judged / "figures.csv").read_text()

    process, out, log = start("killed")
    records = out / "arms" / "naive_expert" / "items"
    deadline = time.monotonic() + 600
    kept = before = 0
    while kept == before:  # until it stands with edits under way
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
        if len(list(records.glob("[!.]*.json"))) >= 2:
            os.kill(process.pid, signal.SIGSTOP)  # what is read now is what the kill leaves
            whole = [json.loads(path.read_text()) for path in records.glob("[!.]*.json")]
            kept, before = sum(len(record["turns"]) for record in whole), edits(log)
            os.kill(process.pid, signal.SIGCONT if kept == before else signal.SIGKILL)
    process.wait()
    assert 2 <= len(whole) < 6
    assert not (out / "judges").exists()

    process, _, _ = start("killed")
    assert process.wait(600) == 0
    unbroken, other, other_log = start("whole")
    assert unbroken.wait(600) == 0
    assert edits(log) == before + edits(other_log) - kept
    assert figures(out) == figures(other)
    calls = edits(log)
    process, _, _ = start("killed")
    assert process.wait(600) == 0
    assert edits(log) == calls


@pytest.mark.parametrize("name", ["imgedit", "gedit", "risebench", "krisbench"])
def test_an_evaluation_goes_on_after_a_kill_and_asks_nothing_twice(name: str, tmp_path: Path) -> None:
    with ChatServer() as server:
        answers = answering(lambda call: 3 + len(question(call)) % 3)
        server.choose = lambda call: answers(call) if len(server.calls) <= 3 else Hangs()
        command = [sys.executable, "-c", "from thinkedit.cli import app; app()"]
        process = subprocess.Popen([*command, *arguments(name, server, tmp_path / "killed")])
        deadline = time.monotonic() + 600
        while len(server.calls) < 5 and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        time.sleep(1.0)  # the three that were answered are stored by now; two hang
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = [(question(call), *pictures(call)) for call in server.calls]
        assert len(before) == 5

        server.reset()
        server.choose = answers
        resumed = finish(name, server, tmp_path / "killed")
        after = [(question(call), *pictures(call)) for call in server.calls]
        # Only what was in flight when it was killed may be asked again (two at a time).
        assert len(set(before) & set(after)) <= 2

        server.reset()
        assert finish(name, server, tmp_path / "killed") == resumed
        assert not server.calls

        assert finish(name, server, tmp_path / "whole") == resumed
    summary = json.loads(resumed["summary.json"])
    assert summary["complete"]
    [arm] = summary["arms"].values()
    for turns in arm["tables"].values():
        assert {turn["coverage"]["n_judged"] for turn in turns.values()} == {
            turn["coverage"]["n_expected"] for turn in turns.values()
        }

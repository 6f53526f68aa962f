"""`thinkedit edit` as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_server import ChatServer, Hangs, Says
from PIL import Image
from plain import reply
from typer.testing import CliRunner

from thinkedit import cli
from thinkedit.cli import options
from thinkedit.configs.load import load_config, save_config
from thinkedit.configs.schema import Config
from thinkedit.envs.world.tasks import WorldTasks

runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})
TASK = WorldTasks().task("test", 7)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "shapes.png"
    Image.fromarray(TASK.source).save(path)
    return path


def test_it_prints_the_critiques_and_writes_the_pictures(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = runner.invoke(
        cli.app,
        ["edit", str(picture), TASK.instruction, "--thinker", "naive_expert", "-n", "4", "-o", str(out)],
    )
    assert result.exit_code == 0, result.output
    record = json.loads((out / "edit.json").read_text())
    shown = " ".join(result.output.split())
    for edit in record["edits"]:
        assert edit["prompt"] in shown
        if edit["critique"] is not None:
            assert " ".join(edit["critique"]["reason"].split()) in shown
    assert (out / "result.png").is_file()
    assert f"wrote {out}" in shown


def test_folders_are_numbered(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        result = runner.invoke(cli.app, ["edit", str(picture), TASK.instruction, "--thinker", "naive_expert"])
        assert result.exit_code == 0, result.output
        assert Path("runs", "edits", f"shapes-{number}", "result.png").is_file()


def test_a_server_that_fails_leaves_the_edits_and_exit_code_1(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ChatServer() as server:
        server.answers["sc"] = [Says("no idea")]
        asked = ["--thinker", server.base_url, "--model", "m"]
        result = runner.invoke(cli.app, ["edit", str(picture), TASK.instruction, *asked, "-o", str(out)])
        assert server.calls[0].body["model"] == "m"
    assert result.exit_code == 1, result.output
    assert json.loads((out / "edit.json").read_text())["stop"] == "thinker_unreadable"
    assert (out / "edit_0.png").is_file()


def test_a_server_is_told_the_task_and_no_key_that_is_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*overrides: str, config: str | None = None, thinker: str) -> Config:
        given = dict(thinker=thinker, model=None, mode=None, accept_at=None, more={})
        return options.for_inference(config, overrides, **given)

    local = asked(thinker="http://127.0.0.1:8000/v1")
    assert (local.protocol.template, local.inference.server.api_key_env) == ("full", None)
    official = asked(thinker="https://api.openai.com/v1")
    assert (official.protocol.template, official.inference.server.api_key_env) == ("full", "OPENAI_API_KEY")
    mine = asked("inference.server.api_key_env=MINE", "protocol.template=brief", thinker="http://x/v1")
    assert (mine.protocol.template, mine.inference.server.api_key_env) == ("brief", "MINE")
    named = asked(config="demo", thinker="http://x/v1")  # whoever names a recipe gets that one
    assert (named.protocol.template, named.inference.server.api_key_env) == ("brief", "OPENAI_API_KEY")


def test_a_runs_thinker_is_asked_as_it_was_trained(tmp_path: Path) -> None:
    (tmp_path / "grpo" / "policy").mkdir(parents=True)
    trained = ["protocol.template=full", "policy.max_pixels=200704", "editor=even", "episode.accept_at=9"]
    save_config(load_config("demo", trained), tmp_path)
    given = dict(thinker=str(tmp_path), model=None, mode=None, accept_at=None, more={})
    loaded = options.for_inference(None, ["editor=procedural"], **given)
    assert (loaded.protocol.template, loaded.policy.max_pixels, loaded.episode.accept_at) == (
        "full",
        200704,
        9,
    )
    assert loaded.policy.path == str(tmp_path / "grpo" / "policy")
    assert loaded.editor.name == "procedural"
    assert options.for_inference("demo", [], **given).protocol.template == "brief"


def test_mistakes_are_one_line(picture: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["nothing.png", "x"], "nothing.png: not a readable picture"),
        ([str(picture), "x", "--thinker", "naive_exprt"], "Did you mean 'naive_expert'?"),
        ([str(picture), "x", "--thinker", "naive_expert", "--mode", "expert"], "mode=expert"),
        ([str(picture), "make it red", "--thinker", "naive_expert", "--accept-at", "11"], "accept_at=11"),
    ):
        result = runner.invoke(cli.app, ["edit", *arguments, "-o", str(tmp_path / "out")])
        assert result.exit_code == 2, result.output
        assert message in result.output
        assert result.output.count("error:") == 1


def test_a_run_folder_stands_for_its_last_policy(tmp_path: Path) -> None:
    def path(thinker: Path) -> str:
        return options.for_inference(
            "demo", [], thinker=str(thinker), model=None, mode=None, accept_at=None, more={}
        ).policy.path

    assert path(tmp_path) == str(tmp_path)
    (tmp_path / "sft" / "policy").mkdir(parents=True)
    assert path(tmp_path) == str(tmp_path / "sft" / "policy")
    (tmp_path / "grpo" / "policy").mkdir(parents=True)
    assert path(tmp_path) == str(tmp_path / "grpo" / "policy")


def test_the_threshold_is_the_threshold(picture: Path, tmp_path: Path) -> None:
    with ChatServer() as server:
        server.answers["sc"] = [Says(reply("paint the orange triangle red", 6, 6))]
        for accept_at, edits in (("6", 1), ("6.5", 2)):
            out = tmp_path / accept_at
            asked = ["--thinker", server.base_url, "--accept-at", accept_at, "-n", "2", "-o", str(out)]
            runner.invoke(
                cli.app,
                ["edit", str(picture), TASK.instruction, "inference.server.api_key_env=null", *asked],
            )
            assert len(list(out.glob("edit_*.png"))) == edits, accept_at


def test_ctrl_c_keeps_what_is_there(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ChatServer() as server:
        server.answers["sc"] = [Hangs()]
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from thinkedit.cli import app; app()", "edit"),
                *(str(picture), TASK.instruction, "inference.server.api_key_env=null"),
                *("--thinker", server.base_url, "-o", str(out)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TERM": "dumb"},
        )
        try:
            while server.in_flight == 0:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            shown, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, shown
    assert "stopped: edit 0 is the result" in shown
    assert json.loads((out / "edit.json").read_text())["stop"] == "stopped"
    assert (out / "result.png").is_file()

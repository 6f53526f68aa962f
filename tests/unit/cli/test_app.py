import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from thinkedit import cli
from thinkedit.errors import ConfigError

runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})


def test_help_groups_the_commands() -> None:
    result = runner.invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    positions = [result.output.index(f"─ {panel} ─") for panel in cli.PANELS]
    assert positions == sorted(positions)
    for command in cli.COMMANDS.values():
        assert re.search(rf"{command.name}\s+{re.escape(command.help)}", result.output), command.name


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help(name: str) -> None:
    result = runner.invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"Usage: root {name}" in result.output


def test_a_base_is_pretrained_on_a_known_device_only(tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["pretrain-base", str(tmp_path / "base"), "--device", "cude"])
    assert result.exit_code != 0
    assert "Did you mean 'cuda'" in f"{result.output}{result.exception}"


def test_no_command_prints_help() -> None:
    assert "Usage" in runner.invoke(cli.app, []).output


def test_version() -> None:
    result = runner.invoke(cli.app, ["--version"])
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", result.output)


def test_a_mistyped_command_offers_the_nearest() -> None:
    result = runner.invoke(cli.app, ["reprot"])
    assert result.exit_code == 2
    assert "'report'" in result.output


def test_our_errors_are_one_line_with_exit_code_2() -> None:
    result = runner.invoke(cli.app, ["config", "grpo.lrr=1"])
    assert result.exit_code == 2
    assert result.output.startswith("error: unknown config key 'grpo.lrr'. Did you mean 'grpo.lr'?")
    assert len(result.output.splitlines()) == 1
    assert isinstance(result.exception, SystemExit)


def test_debug_shows_where_an_error_came_from() -> None:
    result = runner.invoke(cli.app, ["--debug", "config", "grpo.lrr=1"])
    assert isinstance(result.exception, ConfigError)


def failing_with(error: Exception) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_a_missing_library_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ModuleNotFoundError("No module named 'a_library'", name="a_library.part")
    monkeypatch.setattr(cli.Command, "load", lambda self: failing_with(absent))
    result = runner.invoke(cli.app, ["config"])
    assert result.exit_code == 2
    assert "needs 'a_library'" in result.output


def test_a_bug_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ModuleNotFoundError("No module named 'thinkedit.gone'", name="thinkedit.gone")
    monkeypatch.setattr(cli.Command, "load", lambda self: failing_with(absent))
    assert runner.invoke(cli.app, ["config"]).exception is absent


def test_config_prints_what_loads_again(tmp_path: pytest.TempPathFactory) -> None:
    from thinkedit.configs.load import load_config

    printed = runner.invoke(cli.app, ["config", "grpo.steps=7"]).stdout
    path = tmp_path / "printed.yaml"  # type: ignore[operator]
    path.write_text(printed)
    assert load_config(path) == load_config("demo", ["grpo.steps=7"])


def test_config_says_what_cannot_run_here() -> None:
    result = runner.invoke(cli.app, ["config", "editor.name=nobodys"])
    assert result.exit_code == 0
    assert "not runnable here: unknown editors plug-in 'nobodys'" in result.stderr


def test_config_lists_recipes_and_choices() -> None:
    output = runner.invoke(cli.app, ["config", "--list"]).output
    assert "recipes: demo, paper/flux_kontext" in output
    assert re.search(r"^editor: .*procedural", output, re.MULTILINE)


def test_plugins_lists_every_kind() -> None:
    from thinkedit.plugins import KINDS

    result = runner.invoke(cli.app, ["plugins"])
    assert result.exit_code == 0, result.output
    assert [line for line in result.output.splitlines() if not line.startswith(" ")] == list(KINDS)
    assert "thinkedit.envs.editors.procedural:ProceduralEditor" in result.output


def test_plugins_refuses_an_unknown_kind() -> None:
    result = runner.invoke(cli.app, ["plugins", "editor"])
    assert result.exit_code == 2
    assert "Did you mean 'editors'" in result.output


def test_nothing_is_registered_twice() -> None:
    names = [command.name for commands in cli.PANELS.values() for command in commands]
    assert len(names) == len(set(names))
    assert isinstance(cli.app, typer.Typer)


def test_check_judge_tells_how_often_it_sees_which_edit_is_better() -> None:
    result = runner.invoke(cli.app, ["check-judge", "judge.canaries.pairs=10"])
    assert result.exit_code == 0, result.output
    assert "accuracy: 1.00" in result.output
    assert re.search(r"bystander harmed .*2 .*0 .*0", result.output)


def test_check_judge_exits_with_1_when_a_judge_gives_no_verdict() -> None:
    dead = [
        "judge=viescore",
        "judge.options.base_url=http://127.0.0.1:9/v1",
        "judge.options.api_key_env=null",
    ]
    result = runner.invoke(cli.app, ["check-judge", *dead, "judge.canaries.pairs=1", "judge.options.tries=1"])
    assert result.exit_code == 1
    assert "accuracy: none" in result.output
    assert "1 without a verdict (first: JudgeUnreachable" in result.stderr

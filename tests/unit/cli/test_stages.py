"""What a run folder lets through when its command is given again."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from thinkedit import cli
from thinkedit.cli.stages import open_run
from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config
from thinkedit.errors import ConfigError


def config(run: Path, *overrides: str) -> Config:
    judge = ["judge=viescore", "judge.options.api_key_env=null", "limits.judge.per_image=0.01"]
    return load_config("demo", [f"run_dir={run}", *judge, *overrides])


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    open_run(config(tmp_path))
    with pytest.raises(ConfigError, match=r"other settings \(grpo\.lr, seed\)"):
        open_run(config(tmp_path, "grpo.lr=1", "seed=1", "limits.budget=5"))
    assert open_run(config(tmp_path)).config().limits.budget is None


def test_a_finished_warm_start_is_offered_to_other_settings(tmp_path: Path) -> None:
    open_run(config(tmp_path))
    policy = tmp_path / "sft" / "policy"
    policy.mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"train --policy {policy}` starts from its SFT model"):
        open_run(config(tmp_path, "seed=1"))


def test_training_from_nothing_takes_no_folder(tmp_path: Path) -> None:
    """Or the right command with other settings would be refused because of the wrong one."""
    result = CliRunner().invoke(cli.app, ["train", f"run_dir={tmp_path / 'run'}", "grpo.steps=3"])
    assert result.exit_code == 2
    assert "no policy to start from" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["demo", "train"])
def test_what_grpo_cannot_do_is_told_before_the_folder_is_taken(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, f"run_dir={tmp_path / 'run'}", "rollout.top_p=0.9"])
    assert result.exit_code == 2
    assert "rollout.top_p=0.9: GRPO needs 1" in result.output
    assert not (tmp_path / "run").exists()


def test_limits_may_change_and_the_folder_keeps_the_new_ones(tmp_path: Path) -> None:
    open_run(config(tmp_path, "limits.budget=5"))
    run = open_run(config(tmp_path, "limits.budget=50", "limits.judge.requests_per_minute=100"))
    assert (run.config().limits.budget, run.config().limits.judge.requests_per_minute) == (50, 100)

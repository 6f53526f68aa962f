"""What a run folder lets through when its command is given again."""

from pathlib import Path

import pytest

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


def test_limits_may_change_and_the_folder_keeps_the_new_ones(tmp_path: Path) -> None:
    open_run(config(tmp_path, "limits.budget=5"))
    run = open_run(config(tmp_path, "limits.budget=50", "limits.judge.requests_per_minute=100"))
    assert (run.config().limits.budget, run.config().limits.judge.requests_per_minute) == (50, 100)

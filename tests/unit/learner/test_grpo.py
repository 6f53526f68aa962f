"""Which policy a folder with checkpoints may go on from."""

from pathlib import Path

import pytest

from thinkedit.configs.load import load_config
from thinkedit.errors import ConfigError
from thinkedit.learner import grpo
from thinkedit.learner.grpo import prepare, refuse_other_start
from thinkedit.learner.launch import MARKER
from thinkedit.learner.verl_config import Paths, grpo_config


def paths(root: Path, policy: Path | str) -> Paths:
    return Paths(policy=str(policy), run_dir=root / "grpo", scratch=root)


def started(root: Path, policy: Path | str) -> None:
    """What a run from `policy` leaves behind once it has saved a checkpoint."""
    where = paths(root, policy)
    config = load_config("demo", [f"run_dir={root}"])
    prepare(config, grpo_config(config, where), where)
    where.checkpoints.mkdir()
    (where.checkpoints / MARKER).write_text("20")


def test_checkpoints_go_on_from_the_policy_they_began_from(tmp_path: Path) -> None:
    started(tmp_path, tmp_path / "sft" / "policy")
    refuse_other_start(paths(tmp_path, tmp_path / "sft" / "policy"))


def test_another_policy_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpo, "follow", lambda *_, **__: pytest.fail("training was started"))
    started(tmp_path, "hub/first")
    written = (tmp_path / "grpo" / "verl.yaml").read_text()
    config = load_config("demo", [f"run_dir={tmp_path}", "grpo.rehearsal.batch_size=0"])
    with pytest.raises(ConfigError, match="began from hub/first, not from hub/second"):
        grpo.run_grpo(config, "hub/second", tmp_path / "grpo")
    assert (tmp_path / "grpo" / "verl.yaml").read_text() == written


def test_a_start_that_left_no_checkpoint_binds_nobody(tmp_path: Path) -> None:
    started(tmp_path, "hub/first")
    (tmp_path / "grpo" / "checkpoints" / MARKER).unlink()
    refuse_other_start(paths(tmp_path, "hub/second"))


def test_a_run_that_moved_with_its_policy_goes_on(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    started(old, old / "sft" / "policy")
    old.rename(new)
    refuse_other_start(paths(new, new / "sft" / "policy"))
    with pytest.raises(ConfigError, match="began from"):
        refuse_other_start(paths(new, new / "other" / "policy"))

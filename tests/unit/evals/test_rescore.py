"""Stored episodes score again as they were logged, and otherwise under another reward."""

from pathlib import Path

import pytest
from episodes import play
from same import differences
from typer.testing import CliRunner

from thinkedit.actors.rows import changed
from thinkedit.actors.store import TrajectoryStore
from thinkedit.cli import app
from thinkedit.configs.schema import RewardConfig
from thinkedit.errors import JudgeMismatch
from thinkedit.evals.rescore import Rescoring, largest_difference, rescore
from thinkedit.evals.run import RunFolder
from thinkedit.rewards.profiles import PROFILES
from thinkedit.rewards.rubric import Rubric
from thinkedit.types import Episode, Verdict


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryStore:
    """Played and logged under `balanced`."""
    with TrajectoryStore(tmp_path_factory.mktemp("store")) as store:
        for episode in play(48, group_size=4, garbled=0.15, failing=0.1, step=1):
            store.append(episode)
    return store


def under(store: TrajectoryStore, profile: str) -> tuple[list[Episode], Rescoring]:
    found = Rescoring()
    rubric = Rubric.from_config(RewardConfig(profile=profile))
    return list(rescore(store.read(tokens=True), rubric, accept_at=8.0, into=found)), found


def test_the_old_profile_gives_every_logged_reward_to_the_bit(stored: TrajectoryStore) -> None:
    episodes, found = under(stored, "balanced")
    assert found.scored > 60
    assert found.ungraded > 0
    assert found.reproduced == found.scored
    assert found.largest_difference == 0.0
    assert found.sign_flips()[0] == 0
    again = zip(stored.read(tokens=True), episodes, strict=True)
    assert [d for a, b in again for d in differences(a, b)] == []


@pytest.mark.parametrize("profile", [p for p in PROFILES if p != "balanced"])
def test_another_profile_changes_totals_and_back_again(
    stored: TrajectoryStore, profile: str, tmp_path: Path
) -> None:
    episodes, found = under(stored, profile)
    assert found.largest_difference > 0
    with TrajectoryStore(tmp_path) as there:
        for episode in episodes:
            there.append(episode)
    back, _ = under(there, "balanced")
    again = zip(stored.read(tokens=True), back, strict=True)
    assert [d for a, b in again for d in differences(a, b)] == []


def test_what_nobody_graded_stays_without_a_reward(stored: TrajectoryStore) -> None:
    for profile in PROFILES:
        episodes, _ = under(stored, profile)
        turns = [turn for episode in episodes for turn in episode.turns]
        assert all((turn.reward is not None) == turn.outcome.valid for turn in turns)
        assert any(not turn.outcome.valid for turn in turns)


def test_an_opposite_reward_flips_every_advantage_that_is_not_zero(stored: TrajectoryStore) -> None:
    found = Rescoring()
    weights = {"semantic": -0.3, "quality": -0.1, "critic": -0.1, "format": -0.5}
    rubric = Rubric.from_config(RewardConfig(profile="balanced", weights=weights))
    for _ in rescore(stored.read(), rubric, accept_at=8.0, into=found):
        pass
    flips, members = found.sign_flips()
    assert 0 < flips <= members
    assert [-b for b in found.new] == pytest.approx(found.old)


def test_term_table_shows_both_weights(stored: TrajectoryStore) -> None:
    _, found = under(stored, "released")
    critic = next(term for term in found.terms() if term.name == "critic")
    assert (critic.old_weight, critic.new_weight) == (0.1, 0.0)
    assert critic.old_mean == critic.new_mean


def test_verdicts_of_two_judges_are_refused(stored: TrajectoryStore) -> None:
    episode = next(e for e in stored.read() if e.turns and e.turns[0].critique and not e.turns[0].kept)
    turn = episode.turns[0]
    other = Verdict(scores=turn.before.scores, judge_id="another", prompt_hash="x")
    mixed = changed(episode, turns=[changed(turn, before=other)])
    with pytest.raises(JudgeMismatch):
        largest_difference([mixed], Rubric.from_config(RewardConfig()), accept_at=8.0)


def test_the_command_reproduces_the_run_and_writes_the_new_rewards(run: RunFolder, tmp_path: Path) -> None:
    runner = CliRunner()
    same = runner.invoke(app, ["rescore", str(run.root)])
    assert same.exit_code == 0, same.output
    assert "largest difference           0 " in same.output
    out = tmp_path / "paper"
    other = runner.invoke(
        app, ["rescore", str(run.root), "--profile", "paper", "--arm", "grpo", "--out", str(out)]
    )
    assert other.exit_code == 0, other.output
    weights = [
        t.reward.weights for e in TrajectoryStore(out).read() for t in e.turns if t.reward and t.critique
    ]
    assert all(w["overall"] == 0.4 for w in weights)
    assert len(TrajectoryStore(out)) == len(run.arms()["grpo"])
    assert runner.invoke(app, ["rescore", str(run.root), "--out", str(out)]).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "papre"], "Did you mean 'paper'?"),
        (["--arm", "gpro"], "Did you mean 'grpo'?"),
        (["--weight", "semantic"], "expected TERM=NUMBER"),
        (["--weight", "semantics=1"], "Did you mean 'semantic'?"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_one(
    run: RunFolder, arguments: list[str], message: str
) -> None:
    result = CliRunner().invoke(app, ["rescore", str(run.root), *arguments])
    assert result.exit_code == 2
    assert message in result.output

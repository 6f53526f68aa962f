"""The figures of a run are counted from its episodes, and wrong comparisons are refused."""

import json
import shutil
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
from episodes import play

from thinkedit.actors.rows import changed
from thinkedit.actors.store import TrajectoryStore
from thinkedit.errors import DataError, JudgeMismatch
from thinkedit.evals.run import RunFolder, write_json
from thinkedit.evals.summary import made_up_rewards, overall_by_turn, summarise, summarise_run
from thinkedit.types import Episode, Outcome, RewardBreakdown, Verdict


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return play(40, split="test", garbled=0.2, failing=0.15)


def graded(episode: Episode) -> bool:
    return episode.first is not None and all(turn.after is not None for turn in episode.turns)


def test_the_score_is_the_root_of_the_product_of_the_final_picture(episodes: list[Episode]) -> None:
    figures = summarise({"sft": episodes}, max_turns=2, resamples=100)["arms"]["sft"]
    finals = [e.final.scores for e in episodes if graded(e) and e.final]
    mean = sum(sqrt(s.semantic * s.quality) for s in finals) / len(finals)
    assert figures["overall"]["mean"] == pytest.approx(mean)
    assert figures["overall"]["n"] == len(finals)
    assert figures["failed"] == len(episodes) - len(finals) > 0


def test_every_turn_has_the_same_n_and_early_stops_keep_their_score(episodes: list[Episode]) -> None:
    figures = summarise({"sft": episodes}, max_turns=4, resamples=100)["arms"]["sft"]
    assert len(figures["by_turn"]) == 5
    assert len({point["n"] for point in figures["by_turn"]}) == 1
    assert figures["by_turn"][2] == figures["by_turn"][4] == figures["overall"]


def test_a_single_edit_arm_is_made_of_the_first_edits(episodes: list[Episode]) -> None:
    arms = summarise({"sft": episodes}, max_turns=2, resamples=100)["arms"]
    single = arms["single_edit"]
    firsts = [e.first.scores.overall for e in episodes if e.first]
    assert single["overall"]["mean"] == pytest.approx(sum(firsts) / len(firsts))
    assert single["format_validity"] is None
    assert single["edits_per_episode"] == 1.0


def test_outcomes_are_counted_by_turn(episodes: list[Episode]) -> None:
    outcomes = summarise({"sft": episodes}, max_turns=2, resamples=100)["arms"]["sft"]["outcomes"]
    turns = [turn.outcome for e in episodes for turn in e.turns]
    assert outcomes["malformed"] == turns.count(Outcome.MALFORMED) > 0
    without_turns = sum(not e.turns for e in episodes)
    assert outcomes["editor_failed"] == turns.count(Outcome.EDITOR_FAILED) + without_turns
    assert sum(outcomes.values()) == len(turns) + without_turns


def test_a_made_up_reward_is_found(episodes: list[Episode]) -> None:
    assert made_up_rewards(episodes) == 0
    victim = next(e for e in episodes if e.turns and not e.turns[-1].outcome.valid)
    reward = RewardBreakdown(total=0.0, terms={}, weights={})
    forged = changed(victim, turns=[*victim.turns[:-1], changed(victim.turns[-1], reward=reward)])
    assert made_up_rewards([*episodes, forged]) == 1


def test_a_failed_episode_has_no_course(episodes: list[Episode]) -> None:
    for episode in episodes:
        assert (overall_by_turn(episode, 2) is None) == (not graded(episode))


def test_arms_of_different_tasks_are_refused(episodes: list[Episode]) -> None:
    with pytest.raises(DataError, match="'sft' and 'grpo' saw different tasks"):
        summarise({"sft": episodes, "grpo": episodes[1:]}, max_turns=2)
    with pytest.raises(DataError, match="'sft' has a task and seed twice"):
        summarise({"sft": [*episodes, episodes[0]]}, max_turns=2)


def test_arms_of_different_first_edits_are_refused(episodes: list[Episode]) -> None:
    position = next(i for i, e in enumerate(episodes) if e.first)
    other = list(episodes)
    first = other[position].first
    assert first is not None
    scores = changed_scores(first, semantic=(first.scores.semantic + 1) % 10)
    other[position] = changed(other[position], first=scores)
    with pytest.raises(DataError, match="started from different first edits"):
        summarise({"sft": episodes, "grpo": other}, max_turns=2)


def test_the_change_of_the_critics_error_is_paired_by_first_edit(episodes: list[Episode]) -> None:
    readable = [e for e in episodes if e.turns and e.turns[0].critique]
    worse = [two_points_off(e) for e in readable[:5]]  # on one of two axes; the expert itself is exact
    lost = [e for e in episodes if e.group != readable[-1].group]  # one task that only SFT could play
    silent = changed(readable[-1], turns=[])
    after = {e.group: e for e in [*lost, silent, *worse]}.values()
    change = summarise({"sft": episodes, "grpo": after}, max_turns=2, resamples=500)["critic_change"]
    assert change["n"] == len(readable) - 1
    assert change["mean"] == pytest.approx(5 / (len(readable) - 1))
    assert 0 <= change["low"] < change["mean"] < change["high"]
    assert summarise({"sft": episodes}, max_turns=2, resamples=10)["critic_change"] is None


def two_points_off(episode: Episode) -> Episode:
    turn = episode.turns[0]
    assert turn.critique is not None
    scores = turn.critique.scores
    guess = scores.semantic + (2 if scores.semantic <= 8 else -2)
    critique = replace(turn.critique, scores=type(scores)(guess, scores.quality))
    return changed(episode, turns=[changed(turn, critique=critique), *episode.turns[1:]])


def test_verdicts_of_two_judges_are_never_compared(episodes: list[Episode]) -> None:
    other = [
        changed(e, first=Verdict(scores=e.first.scores, judge_id="another", prompt_hash="x"))
        if e.first
        else e
        for e in episodes
    ]
    with pytest.raises(JudgeMismatch, match="different judges"):
        summarise({"sft": episodes, "grpo": other}, max_turns=2)


def changed_scores(verdict: Verdict, *, semantic: float) -> Verdict:
    return Verdict(
        scores=type(verdict.scores)(semantic, verdict.scores.quality),
        judge_id=verdict.judge_id,
        prompt_hash=verdict.prompt_hash,
    )


def test_a_runs_summary_holds_what_the_issue_asks_for(run: RunFolder) -> None:
    summary = summarise_run(run)
    assert list(summary["arms"]) == ["single_edit", "sft", "grpo"]
    assert [(g["from"], g["to"]) for g in summary["gains"]] == [("single_edit", "sft"), ("sft", "grpo")]
    assert summary["made_up_rewards"] == 0
    assert summary["rescored"]["largest_difference"] == 0.0
    assert summary["rescored"]["turns"] > 50
    assert summary["arms"]["grpo"]["reading_fidelity"]["mean"] == 1.0
    assert summary["training"]["probability_gap"] == {"largest": 4e-6, "step": 4, "unmeasured_steps": 0}
    assert summary["training"]["seconds"] == {"gen": 8.0}
    assert summary["seconds"] == {"sft": 12.0, "grpo": 34.5}
    assert summary["checks"]["grpo_above_sft"]["holds"]
    assert summary["checks"]["probability_gap"]["holds"]


def test_a_forged_total_shows_in_the_checks(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    forged = RunFolder(tmp_path / "run")
    victim = next(e for e in TrajectoryStore(forged.trajectories).read() if e.turns and e.turns[0].reward)
    turn = victim.turns[0]
    assert turn.reward is not None
    reward = RewardBreakdown(
        total=turn.reward.total + 1e-12, terms=turn.reward.terms, weights=turn.reward.weights
    )
    with TrajectoryStore(forged.trajectories, writer="forger") as store:
        store.append(changed(victim, turns=[changed(turn, reward=reward)]))
    assert not summarise_run(forged)["checks"]["rescored_difference"]["holds"]


@pytest.mark.parametrize("line", ['{"step": 5, "gap/prob_max": NaN}', '{"step": 5, "loss": 1.0}'])
def test_a_gap_that_was_not_measured_is_not_hidden(run: RunFolder, tmp_path: Path, line: str) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    with folder.metrics("grpo").open("a") as file:
        file.write(line + "\n")
    summary = summarise_run(folder)
    assert not summary["checks"]["probability_gap"]["holds"]
    write_json(folder.summary, summary)  # strict JSON, which has no NaN
    assert json.loads(folder.summary.read_text())["training"]["steps"] == 5


def test_a_gap_that_was_never_measured_fails_its_check(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.metrics("grpo").write_text('{"step": 1, "loss": 1.0}\n')
    summary = summarise_run(folder)
    assert summary["training"]["probability_gap"] == {"largest": None, "step": None, "unmeasured_steps": 1}
    assert not summary["checks"]["probability_gap"]["holds"]
    folder.metrics("grpo").unlink()
    assert "probability_gap" not in summarise_run(folder)["checks"]


def test_what_is_no_finished_run_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no run folder"):
        summarise_run(RunFolder(tmp_path))
    shutil.copytree(run.root, tmp_path / "run", ignore=lambda *_: {"evaluation"})
    with pytest.raises(DataError, match="nothing was evaluated"):
        summarise_run(RunFolder(tmp_path / "run"))


def test_a_step_that_ran_again_counts_once_and_half_a_line_is_skipped(tmp_path: Path) -> None:
    folder, file = RunFolder(tmp_path), RunFolder(tmp_path).metrics("grpo")
    file.parent.mkdir()
    lines = '{"step": 2, "a": 2}\n{"step": 1, "data": {"a": 1}}\n{"step": 2, "a": 20}\n{"step": 3, "a'
    file.write_text(lines)
    assert folder.steps("grpo") == [{"step": 1, "a": 1}, {"step": 2, "a": 20}]
    file.write_text(lines + '\n{"step": 4}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 4"):
        folder.steps("grpo")
    assert folder.steps("sft") == []


def test_phases_add_up_when_resumed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for phase, seconds in (("sft", 1.5), ("grpo", 2.0), ("sft", 0.5)):
        folder.add_seconds(phase, seconds)
    assert folder.seconds() == {"sft": 2.0, "grpo": 2.0}
    assert list(folder.seconds()) == ["sft", "grpo"]

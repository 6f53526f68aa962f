"""What a step's samples become: figures, rows for the estimators, and a stop when too many fail."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from thinkedit.configs.schema import AdvantageConfig, FailuresConfig, RewardConfig
from thinkedit.learner.advantages import estimate, spread
from thinkedit.learner.samples import (
    FailureGuard,
    TooManyFailures,
    TurnRecord,
    advantage_rows,
    step_metrics,
)
from thinkedit.rewards.rubric import Rubric
from thinkedit.rewards.terms import Evidence
from thinkedit.types import Critique, Scores, Verdict


def record(**changes: Any) -> TurnRecord:
    plain: dict[str, Any] = {
        "group": "g",
        "episode": "e",
        "turn": 0,
        "state_key": "s",
        "outcome": "ok",
        "reward": 0.5,
        "terms": {"format": 1.0},
        "before": 4.0,
        "after": 6.0,
        "reply_tokens": 10,
    }
    return TurnRecord(**(plain | changes))


def failed(**changes: Any) -> TurnRecord:
    return record(outcome="editor_failed", reward=None, terms={}, after=None, **changes)


def test_failures_are_counted_and_left_out_of_every_mean() -> None:
    metrics = step_metrics([record(reward=1.0), failed(episode="f")])
    assert metrics["reward/total/mean"] == 1.0
    assert metrics["samples/invalid_fraction"] == 0.5
    assert metrics["outcome/editor_failed"] == 1


def test_a_mean_over_nothing_is_absent_rather_than_zero() -> None:
    metrics = step_metrics([failed()])
    assert not [name for name in metrics if name.startswith("reward/")]


def test_terms_are_averaged_over_the_turns_that_have_them() -> None:
    metrics = step_metrics([record(terms={"format": 1.0, "edit": 0.2}), record(terms={"format": 0.0})])
    assert metrics["reward/format/mean"] == 0.5
    assert metrics["reward/edit/mean"] == pytest.approx(0.2)


def test_only_the_last_turn_counts_as_the_end_of_an_episode() -> None:
    turns = [record(turn=0, final=False, after=5.0), record(turn=1, before=5.0, after=9.0)]
    metrics = step_metrics(turns)
    assert metrics["episode/overall_end/mean"] == 9.0
    assert metrics["episode/overall_start/mean"] == 4.0
    assert metrics["episode/turns/mean"] == 2.0


def test_rows_keep_order_and_mark_failures_invalid() -> None:
    rows = advantage_rows([record(), failed(episode="f"), record(turn=1, before=6.0, after=8.0)])
    assert rows.valid.tolist() == [True, False, True]
    assert np.isnan(rows.reward[1])


def test_improvement_is_measured_from_the_start_of_the_episode() -> None:
    rows = advantage_rows([record(after=6.0), record(turn=1, before=6.0, after=8.0)])
    assert rows.improvement is not None
    assert rows.improvement.tolist() == pytest.approx([0.2, 0.4])


def test_a_record_survives_the_way_through_plain_data() -> None:
    assert TurnRecord.from_dict(record().as_dict()) == record()


def test_guard_is_silent_while_few_samples_fail() -> None:
    guard = FailureGuard(FailuresConfig(window=100))
    assert guard.watch([record()] * 97 + [failed()] * 3) is None
    with pytest.raises(TooManyFailures, match="lost 30"):
        FailureGuard(FailuresConfig(window=100)).watch([record()] * 70, lost=30)


def test_guard_warns_above_the_first_limit() -> None:
    warning = FailureGuard(FailuresConfig(window=100)).watch([record()] * 90 + [failed()] * 10)
    assert warning is not None
    assert "editor_failed 10" in warning


def test_guard_stops_the_run_above_the_second_limit() -> None:
    guard = FailureGuard(FailuresConfig(window=100))
    with pytest.raises(TooManyFailures, match="editor_failed 30"):
        guard.watch([record()] * 70 + [failed()] * 30)


def test_guard_looks_back_over_its_window_only() -> None:
    guard = FailureGuard(FailuresConfig(window=100))
    guard.watch([record()] * 85 + [failed()] * 15)
    assert guard.watch([record()] * 100) is None


def test_guard_stops_at_once_when_nothing_could_be_graded() -> None:
    with pytest.raises(TooManyFailures, match="no sample of this step"):
        FailureGuard().watch([failed()] * 4)


def test_guard_stops_at_the_first_sample_that_could_not_be_paid_for() -> None:
    unpaid = record(outcome="budget", reward=None, terms={}, after=None)
    with pytest.raises(TooManyFailures, match=r"limits\.budget is spent: 1 of this step's 500 samples"):
        FailureGuard().watch([record()] * 499 + [unpaid])


def test_both_limits_and_the_window_are_the_configs() -> None:
    half = [record()] * 10 + [failed()] * 10
    assert FailureGuard(FailuresConfig(warn_at=0.5, stop_at=0.5, window=20)).watch(half) is None
    assert FailureGuard(FailuresConfig(warn_at=0.4, stop_at=0.5, window=20)).watch(half) is not None
    assert (
        FailureGuard(FailuresConfig(warn_at=0.0, stop_at=0.0, window=42)).watch(half) is None
    )  # not half full
    with pytest.raises(TooManyFailures, match=r"grpo\.failures\.stop_at is 40%"):
        FailureGuard(FailuresConfig(warn_at=0.4, stop_at=0.4, window=20)).watch(half)


def test_flags_are_a_share_of_the_new_edits() -> None:
    records = [
        record(episode="a", flags=["unchanged"]),
        record(episode="b", flags=["unchanged", "text"]),
        record(episode="c"),
        record(episode="d"),
        record(episode="e", kept=True),
        record(episode="f", outcome="malformed", reward=0.0),
        record(episode="g", outcome="judge_failed", reward=None),
    ]
    metrics = step_metrics(records)
    assert {k: v for k, v in metrics.items() if k.startswith("judge/")} == {
        "judge/flagged/unchanged": 0.5,
        "judge/flagged/text": 0.25,
    }


@pytest.mark.parametrize("shared_prefix", [False, True])
@pytest.mark.parametrize("think_weight", [0.0, 1.0])
@pytest.mark.parametrize(
    ("profile", "totals"),  # of a reply that misses by 2 and gains (3, 1), and of one that is right and keeps
    [
        ("calibrated", (0.65625, 0.875)),
        ("balanced", (0.81, 0.8)),
        ("released", (0.825, 0.75)),
        ("paper", (0.5602, 0.5)),  # its critic pays 0 at best: what a malformed reply has from it
    ],
)
def test_every_token_of_a_malformed_reply_pays_for_what_its_siblings_earned(
    profile: str, totals: tuple[float, float], think_weight: float, shared_prefix: bool
) -> None:
    rubric = Rubric.from_config(RewardConfig(profile=profile))
    before = Scores(5, 6)
    records = []
    for episode, (said, after) in {"a": ((7, 8), (8, 7)), "b": ((5, 6), (5, 6)), "c": (None, None)}.items():
        reward = rubric(
            Evidence(
                critique=None if said is None else Critique("why", Scores(*said), "prompt"),
                before=verdict(before),
                after=None if after is None else verdict(Scores(*after)),
            )
        )
        records.append(
            record(
                episode=episode,
                outcome="malformed" if said is None else "ok",
                reward=reward.total,
                settled=rubric.settled(reward),
                answer_from=4 if said is None else 3,
            )
        )
    assert [r.reward for r in records] == pytest.approx([*totals, 0.0], abs=1e-4)

    rows = replace(advantage_rows(records), tokens=np.array([[1, 2, 3, 4], [1, 2, 5, 4], [1, 2, 3, 6]]))
    config = AdvantageConfig(
        credit="causal", think_weight=think_weight, shared_prefix=shared_prefix, answer_weight=8.0
    )
    found = spread(estimate(rows, config)[0], np.array([r.answer_from for r in records]), length=4)
    np.testing.assert_allclose(found[2], -sum(totals) / 2, atol=1e-4)


def verdict(scores: Scores) -> Verdict:
    return Verdict(scores=scores, judge_id="judge", prompt_hash="prompt")

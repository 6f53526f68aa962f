"""Rewards to the digit, and the rules that hold under every profile."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from thinkedit.configs.schema import RewardConfig
from thinkedit.errors import ConfigError, JudgeMismatch, RewardError, UnknownName
from thinkedit.rewards.profiles import PROFILES, paper
from thinkedit.rewards.rubric import Rubric
from thinkedit.rewards.terms import Evidence, Graded, RewardTerm
from thinkedit.types import Critique, Scores, Verdict

Pair = tuple[float, float]


def verdict(pair: Pair, judge_id: str = "judge@1", prompt_hash: str = "p") -> Verdict:
    return Verdict(scores=Scores(*pair), judge_id=judge_id, prompt_hash=prompt_hash)


def evidence(said: Pair, before: Pair, after: Pair | None, **more: Any) -> Evidence:
    return Evidence(
        critique=Critique("why", Scores(*said), "prompt"),
        before=verdict(before),
        after=None if after is None else verdict(after),
        **more,
    )


def rubric(profile: str = "balanced", **more: Any) -> Rubric:
    return Rubric.from_config(RewardConfig(profile=profile, **more))


@pytest.mark.parametrize(
    ("said", "before", "after", "released", "balanced", "paper_total"),
    [
        ((7, 8), (5, 6), (8, 7), 0.825, 0.810, 0.5602),
        ((5, 5), (5, 5), (5, 5), 0.750, 0.800, 0.5),
        ((3, 9), (3, 9), (9, 4), 0.900, 0.865, 0.5322),
        ((8, 8), (3, 7), (3, 7), 0.750, 0.700, 0.47),
    ],
)
def test_the_worked_examples_come_out_to_the_digit(
    said: Pair, before: Pair, after: Pair, released: float, balanced: float, paper_total: float
) -> None:
    seen = evidence(said, before, after)
    assert rubric("released")(seen).total == pytest.approx(released, abs=1e-12)
    assert rubric("balanced")(seen).total == pytest.approx(balanced, abs=1e-12)
    assert round(rubric("paper")(seen).total, 4) == paper_total


def test_the_total_is_the_weighted_sum_of_the_terms_that_are_kept() -> None:
    for profile in PROFILES:
        result = rubric(profile)(evidence((7, 8), (5, 6), (8, 7)))
        assert result.total == pytest.approx(sum(result.weights[n] * v for n, v in result.terms.items()))
        assert set(result.terms) == set(result.weights) >= {"format", "critic", "semantic", "quality"}


def test_only_the_critic_is_settled_before_the_answer() -> None:
    first = rubric()(evidence((5, 6), (5, 6), (8, 7)))
    second = rubric()(evidence((5, 6), (5, 6), (0, 0)))
    assert rubric().settled(first) == rubric().settled(second) == pytest.approx(0.1)
    assert rubric("released").settled(rubric("released")(evidence((5, 6), (5, 6), (8, 7)))) == 0.0
    assert rubric().settled(rubric()(replace(evidence((5, 6), (5, 6), None), critique=None))) == 0.0


@pytest.mark.parametrize("profile", PROFILES)
def test_a_malformed_reply_earns_nothing_and_has_no_edit_terms(profile: str) -> None:
    result = rubric(profile)(Evidence(critique=None, before=verdict((5, 5))))
    assert result.total == 0
    assert result.terms == {"format": 0.0}
    assert set(result.weights) == {"format"}


@pytest.mark.parametrize(("profile", "total"), [("released", 0.75), ("balanced", 0.80), ("paper", 0.5)])
def test_a_kept_edit_changed_nothing_whatever_verdict_comes_with_it(profile: str, total: float) -> None:
    kept = rubric(profile)(evidence((5, 6), (5, 6), (9, 9), kept=True))
    assert kept.total == pytest.approx(total, abs=1e-12)
    assert (kept.terms["semantic"], kept.terms["quality"], kept.terms["overall"]) == (0.5, 0.5, 0.0)
    assert rubric(profile)(evidence((5, 6), (5, 6), None, kept=True)) == kept


def test_keeping_a_poor_edit_costs_only_who_gives_the_penalty_a_weight() -> None:
    poor, fine = ({"before": (9, 7.9), "after": None}, {"before": (9, 8), "after": None})
    weights = {"format": 0.5, "keep_penalty": 0.2}
    strict = rubric(weights=weights)
    assert strict(evidence((5, 5), **poor, kept=True)).total == pytest.approx(0.3)
    assert strict(evidence((5, 5), **fine, kept=True)).total == pytest.approx(0.5)
    lenient = rubric(weights=weights, options={"keep_penalty": {"below": 7}})
    assert lenient(evidence((5, 5), **poor, kept=True)).total == pytest.approx(0.5)
    default = rubric()
    assert default.weights["keep_penalty"] == 0
    assert default(evidence((5, 5), **poor, kept=True)).terms["keep_penalty"] == -1


@pytest.mark.parametrize("other", [{"judge_id": "judge@2"}, {"prompt_hash": "q"}])
def test_verdicts_of_two_judges_never_meet_in_a_reward(other: dict[str, str]) -> None:
    seen = replace(evidence((5, 5), (5, 5), None), after=verdict((6, 6), **other))
    with pytest.raises(JudgeMismatch, match=next(iter(other))):
        rubric()(seen)


def test_an_unjudged_edit_has_no_reward() -> None:
    with pytest.raises(ValueError, match="not judged"):
        rubric()(evidence((5, 5), (5, 5), None))


@pytest.mark.parametrize("said", [(50.0, -3.0), (float("nan"), 5.0), (float("inf"), 5.0)])
@pytest.mark.parametrize("profile", PROFILES)
def test_scores_that_only_compat_lets_through_stay_within_bounds(said: Pair, profile: str) -> None:
    result = rubric(profile)(evidence(said, (5, 5), (6, 6)))
    assert result.terms["critic"] == 0
    low, high = rubric(profile).bounds
    assert low <= result.total <= high


@pytest.mark.parametrize(
    ("profile", "bounds"), [("balanced", (0, 1)), ("released", (0, 1)), ("paper", (-0.5, 0.9))]
)
def test_a_profile_knows_its_bounds(profile: str, bounds: Pair) -> None:
    assert rubric(profile).bounds == pytest.approx(bounds)


def test_the_papers_weights_must_sum_to_one() -> None:
    assert rubric("paper", weights=paper(0.6, 0.1, 0.3)).weights["overall"] == 0.3
    with pytest.raises(ConfigError, match=r"must sum to 1, got 1\.1"):
        paper(0.6, 0.1, 0.4)
    with pytest.raises(ConfigError, match="must sum to 1"):
        rubric("paper", weights={"format": 0.5, "critic_distance": 0.5, "overall": 0.5})
    with pytest.raises(ConfigError, match="overall is missing"):
        rubric("paper", weights={"format": 0.5, "critic_distance": 0.5})
    with pytest.raises(ConfigError, match="negative"):
        paper(1.5, -0.5, 0.0)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="balanced"):
        rubric("blanced")
    with pytest.raises(UnknownName, match="semantic"):
        rubric(weights={"semantics": 1.0})
    with pytest.raises(UnknownName, match="keep_penalty"):
        rubric(options={"keep_penality": {}})
    with pytest.raises(UnknownName, match="below"):
        rubric(options={"keep_penalty": {"belwo": 7}})
    with pytest.raises(ConfigError, match="finite"):
        rubric(weights={"format": float("nan")})


class Loud(RewardTerm):
    """A plug-in that breaks its word."""

    @dataclass
    class Options:
        value: float = 2.0

    Config = Options
    name = "loud"

    def __call__(self, graded: Graded) -> float:
        return float(self.config.value)


@pytest.mark.parametrize("value", [float("inf"), None, "0.5"])
def test_bounds_that_end_nowhere_let_through_finite_numbers_only(value: Any) -> None:
    class Boundless(Loud):
        bounds = (float("-inf"), float("inf"))

        def __call__(self, graded: Graded) -> float:
            return value  # type: ignore[no-any-return]

    with pytest.raises(RewardError, match="no finite number"):
        Rubric({"loud": Boundless(Loud.Options())}, {"loud": 1.0})(evidence((5, 5), (5, 5), (5, 5)))


@pytest.mark.parametrize("value", [2.0, -0.1, float("nan"), float("inf")])
def test_a_term_outside_its_bounds_stops_the_run(value: float) -> None:
    with pytest.raises(RewardError, match="loud"):
        Rubric({"loud": Loud(Loud.Options(value))}, {"loud": 1.0})(evidence((5, 5), (5, 5), (5, 5)))

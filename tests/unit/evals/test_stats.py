"""Intervals that cover, differences that pair, errors that mean what they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkedit.evals.stats import (
    critic_error,
    mean_interval,
    paired_difference,
    strata_interval,
)
from thinkedit.types import Scores

scores = st.lists(st.floats(0, 10), min_size=2, max_size=40)


@given(scores)
def test_an_interval_holds_its_mean_and_stays_within_the_values(values: list[float]) -> None:
    interval = mean_interval(values, resamples=200)
    slack = 1e-9
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    assert interval.mean == pytest.approx(np.mean(values))


def test_intervals_are_repeatable_and_seeded() -> None:
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_about_95_percent_of_intervals_cover_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        interval = mean_interval(rng.exponential(5.0, 80), resamples=400, seed=trial)
        covered += interval.low <= 5.0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


# 1.96 standard errors of the mean, within the 2 % that 20,000 resamples leave to chance.
HALF_WIDTH = pytest.approx(1.96 * (0.25 / 1000) ** 0.5, rel=0.04)  # 0.0310: ones and noughts vary by 0.25


def test_an_interval_is_as_wide_as_the_known_variance_makes_it() -> None:
    values = [0.0, 1.0] * 500
    for found in (
        mean_interval(values, resamples=20_000),
        strata_interval([[(value, 1.0) for value in values]], resamples=20_000),
        strata_interval([[(4 * value, 4.0) for value in values]], resamples=20_000),  # four marks an item
    ):
        assert (found.mean - found.low, found.high - found.mean) == (HALF_WIDTH, HALF_WIDTH)


def test_an_interval_over_strata_adds_their_variances() -> None:
    """Of the means of 400 ones and noughts and of 100 noughts and twos: 0.25 / 400 and 1 / 100."""
    strata = [[(0.0, 1.0), (1.0, 1.0)] * 200, [(0.0, 1.0), (2.0, 1.0)] * 50]
    found = strata_interval(strata, resamples=20_000)
    half = pytest.approx(1.96 * ((0.000625 + 0.01) / 4) ** 0.5, rel=0.04)  # 0.101
    assert (found.mean - found.low, found.high - found.mean) == (half, half)


def test_one_value_has_a_mean_but_no_interval() -> None:
    interval = mean_interval([4.0])
    assert (interval.mean, interval.n) == (4.0, 1)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_no_mean_is_made_up(values: list[float]) -> None:
    with pytest.raises(ValueError, match="mean"):
        mean_interval(values)


def test_a_paired_difference_ignores_what_only_one_side_has() -> None:
    difference = paired_difference({"a": 1.0, "b": 2.0, "x": 9.0}, {"b": 5.0, "a": 4.0, "y": 0.0})
    assert (difference.mean, difference.n) == (3.0, 2)


def test_pairing_removes_what_the_tasks_have_in_common() -> None:
    rng = np.random.default_rng(1)
    hard = {str(i): float(v) for i, v in enumerate(rng.uniform(0, 10, 100))}
    better = {key: value + 0.5 + rng.normal(0, 0.1) for key, value in hard.items()}
    paired = paired_difference(hard, better)
    assert paired.low > 0.4
    assert mean_interval(list(hard.values())).high > mean_interval(list(better.values())).low


def test_the_critics_error_is_per_axis_and_against_the_best_constant() -> None:
    judged = [Scores(0, 10), Scores(10, 10), Scores(10, 4)]
    predicted = [Scores(1, 8), Scores(8, 10), Scores(10, 10)]
    error = critic_error(predicted, judged)
    assert error is not None
    assert (error.semantic, error.quality) == (pytest.approx(1.0), pytest.approx(8 / 3))
    # the medians are 10 and 10
    assert (error.constant_semantic, error.constant_quality) == (pytest.approx(10 / 3), pytest.approx(2.0))
    assert error.overall == pytest.approx((1.0 + 8 / 3) / 2)
    assert critic_error([], []) is None
    with pytest.raises(ValueError, match="3 predictions for 2 verdicts"):
        critic_error(predicted, judged[:2])


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0, 10))
def test_no_constant_beats_the_constant(judged: list[float], guess: float) -> None:
    truth = [Scores(value, 0.0) for value in judged]
    error = critic_error([Scores(guess, 0.0)] * len(truth), truth)
    assert error is not None
    assert error.constant_semantic <= error.semantic + 1e-9

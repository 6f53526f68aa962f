"""Keep, truncate and unroll, with the numbers worked out by hand (O = sqrt(semantic * quality))."""

from __future__ import annotations

import pytest
from trajectory_files import overall, trajectory

from thinkedit.data.formats.trajectories import overalls
from thinkedit.data.rules.fates import Fate
from thinkedit.data.rules.graded import graded_prefix
from thinkedit.data.rules.keep import refused
from thinkedit.data.rules.truncate import best, truncated
from thinkedit.data.rules.unroll import unrolled


def fate(t, *, keep_immediate_success: bool = False, good_at: float = 8.0):
    return refused(t, keep_immediate_success=keep_immediate_success, good_at=good_at)


def test_overall_is_the_geometric_mean() -> None:
    # sqrt(4 * 9) = 6, sqrt(2 * 8) = 4, sqrt(0 * 10) = 0
    assert overalls(trajectory((4, 9), (2, 8), (0, 10))) == [6.0, 4.0, 0.0]


# --- keep: max over i >= 1 of O_i >= O_0


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ((5, 6), True),  # 6 >= 5
        ((5, 4, 6), True),  # max(4, 6) = 6 >= 5
        ((5, 4, 4.9), False),  # max = 4.9 < 5
        ((5, 5), True),  # a tie keeps
        ((0, 0), True),
        ((10, 9.9, 9.9), False),
    ],
)
def test_kept_when_a_later_edit_is_at_least_as_good(scores: tuple[float, ...], kept: bool) -> None:
    assert fate(overall(*scores)) == (None if kept else Fate.NOT_IMPROVED)


def test_the_axes_alone_decide_nothing() -> None:
    # O: sqrt(9 * 4) = 6, then sqrt(4 * 8) = 5.66: quality doubled, and still it is worse
    assert fate(trajectory((9, 4), (4, 8))) == Fate.NOT_IMPROVED


def test_equal_products_tie_whatever_floating_point_makes_of_them() -> None:
    # 3 * 1.2 is 3.5999999999999996 in floating point, 1.8 * 2 is 3.6
    assert fate(trajectory((1.8, 2), (3, 1.2))) is None


def test_a_single_edit_is_dropped() -> None:
    assert fate(overall(9)) == Fate.SINGLE_EDIT


@pytest.mark.parametrize(
    ("marks", "satisfied", "kept"),
    [
        ((8, 8), True, True),
        ((8, 7.9), True, False),  # one axis below 8
        ((10, 10), False, False),  # the expert wanted more
    ],
)
def test_an_immediate_success_is_kept_on_request(
    marks: tuple[float, float], satisfied: bool, kept: bool
) -> None:
    single = trajectory(marks, satisfied=satisfied)
    assert fate(single, keep_immediate_success=True) == (None if kept else Fate.SINGLE_EDIT)


# --- truncate: k = argmax over i >= 0 of O_i, the earliest


@pytest.mark.parametrize(
    ("scores", "k"),
    [
        ((3, 7, 5), 1),
        ((3, 5, 7), 2),
        ((3, 7, 7, 7), 1),  # the earliest of equals
        ((5, 5), 0),  # kept by the tie, and then the first edit is the best
        ((5, 4, 5), 0),
    ],
)
def test_truncated_at_the_earliest_best(scores: tuple[float, ...], k: int) -> None:
    whole = overall(*scores)
    assert best(whole) == k
    assert truncated(whole).steps == whole.steps[: k + 1]


# --- missing scores


def test_a_missing_score_ends_the_trajectory_before_it() -> None:
    whole = trajectory((3, 3), (5, 5), None, (9, 9))
    prefix = graded_prefix(whole)
    assert prefix is not None
    assert overalls(prefix) == [3.0, 5.0]  # the 9 after the gap doesn't count


def test_nothing_is_left_without_a_score_of_the_first_edit() -> None:
    assert graded_prefix(trajectory(None, (9, 9))) is None


def test_one_graded_edit_before_a_gap_is_a_single_edit() -> None:
    prefix = graded_prefix(trajectory((9, 9), None))
    assert prefix is not None
    assert fate(prefix, keep_immediate_success=True) == Fate.SINGLE_EDIT  # the expert went on


# --- unroll


def test_unrolled_into_refinements_and_a_stop() -> None:
    samples = list(unrolled(overall(2, 4, 8, instruction="paint it")))
    assert [(s.kind, s.edit, s.step.prompt, s.answer) for s in samples] == [
        ("refine", 0, "paint it", "paint it, attempt 1"),
        ("refine", 1, "paint it, attempt 1", "paint it, attempt 2"),
        ("stop", 2, "paint it, attempt 2", "paint it, attempt 2"),
    ]


def test_a_truncated_trajectory_stops_at_an_edit_that_the_expert_wanted_to_improve() -> None:
    *_, stop = unrolled(truncated(overall(2, 8, 5)))
    assert (stop.kind, stop.edit) == ("stop", 1)
    assert stop.step.expert is not None
    assert not stop.step.expert.stop  # so that sanity leaves it out

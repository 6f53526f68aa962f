"""What every reward term promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from math import inf, isfinite, nan

import pytest

from thinkedit.rewards.rubric import Rubric
from thinkedit.rewards.terms import Evidence, Graded, RewardTerm
from thinkedit.types import Critique, Scores, Verdict

SCORES = tuple(Scores(*marks) for marks in product((0.0, 3.5, 10.0), repeat=2))
ANSWERS = ("x", "paint the red star blue", "把红色的星星涂成蓝色 🎨\x00 \ud800", "very " * 400 + "long")
TOLERANCE = 1e-9  # as the rubric's


def turns() -> Iterator[Graded]:
    """Well-formed turns of every kind: each corner of the scores, kept or edited, any threshold."""
    for said, before, after in product(SCORES, repeat=3):
        yield _turn(said, before, after)
    for said, before in product(SCORES, repeat=2):
        yield _turn(said, before, before, kept=True)
    for answer, accept_at in product(ANSWERS, (0.0, 8.0, 10.0)):
        yield _turn(SCORES[4], SCORES[3], SCORES[5], answer=answer, accept_at=accept_at)


def _turn(
    said: Scores,
    before: Scores,
    after: Scores,
    *,
    answer: str = ANSWERS[1],
    kept: bool = False,
    accept_at: float = 8.0,
) -> Graded:
    critique = Critique("the star is still red", said, answer)
    return Graded(critique=critique, before=before, after=after, kept=kept, accept_at=accept_at)


class RewardTermContract(ABC):
    """Inherit it, and say how the term is made."""

    @abstractmethod
    def make(self) -> RewardTerm:
        """A fresh term, in the same configuration each time."""

    def test_its_bounds_are_two_finite_numbers_in_order(self) -> None:
        low, high = self.make().bounds
        assert isfinite(low)
        assert isfinite(high)
        assert low <= high

    def test_every_value_is_finite_and_within_its_bounds(self) -> None:
        term = self.make()
        low, high = term.bounds
        for turn in turns():
            assert low - TOLERANCE <= term(turn) <= high + TOLERANCE, turn

    @pytest.mark.parametrize("wild", [nan, inf, -inf, 1e300, -1.0, 11.0])
    def test_scores_that_only_the_compat_protocol_lets_through_keep_it_within_bounds(
        self, wild: float
    ) -> None:
        term = self.make()
        low, high = term.bounds
        for said in (Scores(wild, 5.0), Scores(5.0, wild), Scores(wild, wild)):
            turn = _turn(said, SCORES[3], SCORES[5])
            assert low - TOLERANCE <= term(turn) <= high + TOLERANCE, turn

    def test_it_depends_on_the_turn_alone_and_leaves_it_as_it_was(self) -> None:
        one, two = self.make(), self.make()
        seen = list(turns())
        kept = deepcopy(seen)
        values = [one(turn) for turn in seen]
        assert seen == kept
        assert [one(turn) for turn in reversed(seen)] == values[::-1]
        assert [two(turn) for turn in seen] == values

    def test_a_term_that_does_not_need_the_answer_has_one_value_whatever_comes_of_it(self) -> None:
        term = self.make()
        if term.needs_answer:
            return
        for said, before in product(SCORES, repeat=2):
            ends = product(SCORES, ANSWERS)
            values = {term(_turn(said, before, after, answer=answer)) for after, answer in ends}
            assert len(values | {term(_turn(said, before, before, kept=True))}) == 1

    def test_it_has_a_name_and_the_rubric_weighs_it_by_it(self) -> None:
        term = self.make()
        assert term.name
        rubric = Rubric({term.name: term}, {term.name: 0.5})
        turn = next(turns())
        before, after = (
            Verdict(scores=scores, judge_id="judge@1", prompt_hash="0")
            for scores in (turn.before, turn.after)
        )
        reward = rubric(Evidence(critique=turn.critique, before=before, after=after))
        assert reward.terms == {term.name: term(turn)}
        assert reward.total == pytest.approx(0.5 * term(turn))
        low, high = rubric.bounds
        assert low - TOLERANCE <= reward.total <= high + TOLERANCE

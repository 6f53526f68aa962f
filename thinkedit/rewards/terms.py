"""Reward terms: named functions of the evidence of one turn.

A term is a plug-in of the entry-point group `thinkedit.reward_terms`: a class with a
`Config` dataclass, `bounds`, and a call. Symbols as in the docstrings below:
s = predicted scores, g = judged scores of the edit the thinker saw, a = judged scores
after the turn, O = sqrt(semantic * quality).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from thinkedit.errors import ConfigError
from thinkedit.plugins import NoOptions
from thinkedit.types import SCORE_MAX, SCORE_MIN, Critique, Scores, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a reward may depend on in one turn.

    critique: None when the reply was malformed.
    before: verdict of the edit the thinker saw.
    after: verdict of the edit it caused; not needed when it kept the edit or was malformed.
    kept: the thinker kept the edit, so that nothing changed.
    accept_at: both predicted scores at or above this accept the edit.
    """

    critique: Critique | None
    before: Verdict
    after: Verdict | None = None
    kept: bool = False
    accept_at: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """The evidence of a well-formed turn that was edited (or kept) and judged: what terms see."""

    critique: Critique
    before: Scores
    after: Scores
    kept: bool
    accept_at: float


class RewardTerm(ABC):
    """One named part of a reward. Subclasses set `name` and `bounds` and write `__call__`.

    A malformed reply never reaches a term: its reward is 0 under every profile.

    needs_answer: whether the value can depend on `<answer>` or on what it leads to. False for a term
        that think and score alone decide: with `grpo.advantage.credit: causal` the answer's tokens
        are not held to account for it.
    """

    Config: ClassVar[type[Any]] = NoOptions
    name: ClassVar[str]
    bounds: tuple[float, float] = (0.0, 1.0)
    needs_answer: ClassVar[bool] = True

    def __init__(self, config: Any = None) -> None:
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def __call__(self, graded: Graded) -> float:
        """The term's value, finite and within `bounds`."""


class Format(RewardTerm):
    """F: 1 for a well-formed reply."""

    name = "format"

    def __call__(self, graded: Graded) -> float:
        return 1.0


class Critic(RewardTerm):
    """A = max(0, 10 - mean((s_k - g_k)^2)) / 10: how well the thinker scored what it saw.

    Source: EditThinker's released reward code. 0 from a mean squared error of 10 on.
    """

    name = "critic"
    needs_answer = False

    def __call__(self, graded: Graded) -> float:
        said, judged = graded.critique.scores, graded.before
        semantic, quality = said.semantic - judged.semantic, said.quality - judged.quality
        # Not ** 2, which raises on overflow. Non-finite only under `compat`, which lets NaN and 1e300
        # through; the reference gives 0 there.
        error = (semantic * semantic + quality * quality) / 2
        return max(0.0, 10.0 - error) / 10.0 if isfinite(error) else 0.0


class SemanticGain(RewardTerm):
    """e_sem = ((a_sem - g_sem) / 10 + 1) / 2; 0.5 means no change (EditThinker's released code)."""

    name = "semantic"

    def __call__(self, graded: Graded) -> float:
        return ((graded.after.semantic - graded.before.semantic) / 10.0 + 1.0) / 2.0


class QualityGain(RewardTerm):
    """e_qual = ((a_qual - g_qual) / 10 + 1) / 2; 0.5 means no change (EditThinker's released code)."""

    name = "quality"

    def __call__(self, graded: Graded) -> float:
        return ((graded.after.quality - graded.before.quality) / 10.0 + 1.0) / 2.0


class CriticDistance(RewardTerm):
    """R_c = -(|s_sem - g_sem| + |s_qual - g_qual|) / 20 in [-1, 0].

    Source: EditThinker paper, Eq. 3, on the edit that was seen; the scaling is ours.
    """

    name = "critic_distance"
    bounds = (-1.0, 0.0)
    needs_answer = False

    def __call__(self, graded: Graded) -> float:
        said, judged = graded.critique.scores, graded.before
        distance = _distance(said.semantic, judged.semantic) + _distance(said.quality, judged.quality)
        return -distance / 20.0


class OverallGain(RewardTerm):
    """R_e = (O_after - O_before) / 10 in [-1, 1]. Source: EditThinker paper, Eq. 4; the scaling is ours."""

    name = "overall"
    bounds = (-1.0, 1.0)

    def __call__(self, graded: Graded) -> float:
        return (graded.after.overall - graded.before.overall) / 10.0


class KeepPenalty(RewardTerm):
    """-1 when an edit was kept that the judge puts below the threshold on either axis, else 0.

    Weight 0 in every profile: give it one to punish early content.
    """

    name = "keep_penalty"
    bounds = (-1.0, 0.0)

    @dataclass
    class Options:
        """below: the threshold; None takes the episode's `accept_at`."""

        below: float | None = None

    Config = Options

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        below = self.config.below
        if below is not None and not SCORE_MIN <= below <= SCORE_MAX:
            raise ConfigError(f"reward.options.keep_penalty.below={below}: scores lie in [0, 10]")

    def __call__(self, graded: Graded) -> float:
        below = graded.accept_at if self.config.below is None else self.config.below
        return -1.0 if graded.kept and graded.before.lowest < below else 0.0


def _distance(said: float, judged: float) -> float:
    """|said - judged|; what only `compat` lets through (out of range, NaN) costs the most, 10."""
    distance = abs(said - judged)
    return distance if distance <= SCORE_MAX else SCORE_MAX

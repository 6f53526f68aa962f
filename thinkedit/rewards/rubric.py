"""The rubric: weighs named terms into one reward and keeps every part."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum, isfinite, nan
from numbers import Real
from typing import Any, Self

from thinkedit import plugins
from thinkedit.configs.schema import RewardConfig
from thinkedit.errors import ConfigError, JudgeError, JudgeMismatch, RewardError, UnknownName
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.profiles import weights_of
from thinkedit.rewards.terms import Evidence, Graded, RewardTerm
from thinkedit.types import JudgeIdentity, RewardBreakdown, Verdict

_TOLERANCE = 1e-9  # rounding of a formula at the very end of its range


class Rubric:
    """Weighted sum of reward terms.

    Rules of every profile: a malformed reply has reward 0 (only its `format` term is kept); an
    edit that was kept changed nothing, exactly; both verdicts come from the same judge; a turn
    that nobody could grade never gets here.

    Args:
        terms: the terms by name.
        weights: weight of each of them, 0 for "log only".
    """

    def __init__(self, terms: Mapping[str, RewardTerm], weights: Mapping[str, float]) -> None:
        if set(terms) != set(weights):
            raise ConfigError(f"terms {sorted(terms)} and weights {sorted(weights)} must have the same names")
        for name, weight in weights.items():
            if not isfinite(weight):
                raise ConfigError(f"reward.weights.{name}={weight}: must be a finite number")
        self.terms = dict(terms)
        self.weights = dict(weights)

    @classmethod
    def from_config(cls, config: RewardConfig | None = None) -> Self:
        """The rubric of a profile, or of own weights over any installed terms.

        Raises:
            UnknownName: no such profile, term, or option of a term.
            ConfigError: weights that the profile does not allow.
        """
        config = config or RewardConfig()
        weights = weights_of(config.profile, config.weights)
        for name in config.options:
            if name not in weights:
                raise UnknownName("term of reward.options", name, weights)
        terms: dict[str, RewardTerm] = {
            name: plugins.build("reward_terms", name, _options(config, name)) for name in weights
        }
        return cls(terms, weights)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest total any reply can get."""
        ends = [sorted(self.weights[name] * end for end in term.bounds) for name, term in self.terms.items()]
        return min(0.0, fsum(end[0] for end in ends)), max(0.0, fsum(end[1] for end in ends))

    def __call__(self, evidence: Evidence) -> RewardBreakdown:
        """The reward of one turn.

        Raises:
            JudgeMismatch: `before` and `after` are two judges' verdicts.
            RewardError: a term's value is no finite number or out of its bounds.
            ValueError: no verdict of the new edit. A failure has no reward; do not ask for one.
        """
        if evidence.critique is None:
            return RewardBreakdown(
                total=0.0, terms={"format": 0.0}, weights={"format": self.weights.get("format", 0.0)}
            )
        after = evidence.before if evidence.kept else evidence.after
        if after is None:
            raise ValueError("the edit was not judged, so the turn has no reward")
        refuse_to_mix(evidence.before, after)
        graded = Graded(
            critique=evidence.critique,
            before=evidence.before.scores,
            after=after.scores,
            kept=evidence.kept,
            accept_at=evidence.accept_at,
        )
        terms = {name: _checked(term, name, term(graded)) for name, term in self.terms.items()}
        total = fsum(self.weights[name] * value for name, value in terms.items())
        return RewardBreakdown(total=total, terms=terms, weights=dict(self.weights))

    def settled(self, reward: RewardBreakdown) -> float:
        """The part of a total that think and score alone decided (`RewardTerm.needs_answer`)."""
        early = (name for name in reward.terms if not self.terms[name].needs_answer)
        return fsum(reward.weights[name] * reward.terms[name] for name in early)


def refuse_to_mix(before: Verdict, after: Verdict) -> None:
    """Raise `JudgeMismatch` unless both verdicts come from the same judge with the same prompt."""
    for field in ("judge_id", "prompt_hash"):
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            raise JudgeMismatch(
                f"one reward can't compare verdicts of two judges: {field} was {old!r} before the edit and "
                f"is {new!r} after it; judge the stored edits again with the present judge"
            )


def refuse_stored(stored: Verdict, judge: Judge) -> None:
    """Raise `JudgeMismatch` where `judge` is known not to be the one that graded a stored edit."""
    known = judge.identities()
    if known is not None and stored.identity not in known:
        raise JudgeMismatch(
            f"a stored edit was graded by {_named(stored.identity)}, and the present judge is "
            f"{' or '.join(map(_named, sorted(known)))}: judge the stored edits again with it, or set the "
            "judge to what it was"
        )


def refuse_other_members(before: Verdict, after: Verdict, judge: Judge) -> None:
    """Raise `JudgeError` where both verdicts are the present judge's, but not of the same members.

    An ensemble that lost a member for a while gives such. It is an outage, unlike a judge that
    changed, which `refuse_to_mix` refuses for good.
    """
    if before.identity != after.identity and {before.identity, after.identity} <= (
        judge.identities() or frozenset()
    ):
        raise JudgeError(
            f"before the edit {_named(before.identity)} answered, after it {_named(after.identity)}: "
            "their scores can't be compared"
        )


def _named(identity: JudgeIdentity) -> str:
    judge_id, prompt_hash = identity
    return f"{judge_id!r} (prompt {prompt_hash})"


def _options(config: RewardConfig, name: str) -> Mapping[str, Any]:
    options = config.options.get(name, {})
    if not isinstance(options, Mapping):
        raise ConfigError(f"reward.options.{name} must be a mapping of option names to values")
    return options


def _checked(term: RewardTerm, name: str, value: object) -> float:
    low, high = term.bounds
    number = float(value) if isinstance(value, Real) else nan
    if not (isfinite(number) and low - _TOLERANCE <= number <= high + _TOLERANCE):
        raise RewardError(
            f"reward term {name!r} gave {value!r}, no finite number within its bounds [{low}, {high}]"
        )
    return number

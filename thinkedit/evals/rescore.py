"""Scores stored episodes again under another reward, from the stored verdicts alone.

No editor, judge or policy is touched: a turn's evidence (critique, verdicts, whether the edit
was kept) is in the trajectory store, and a reward is a pure function of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf

import numpy as np

from thinkedit.actors.rows import changed
from thinkedit.rewards.rubric import Rubric
from thinkedit.rewards.terms import Evidence
from thinkedit.types import Episode, RewardBreakdown, Turn

GroupKey = tuple[int, str, str]


@dataclass(slots=True)
class TermChange:
    """One term's raw mean and weight before and after; None where a reward has no such term."""

    name: str
    old_mean: float | None
    new_mean: float | None
    old_weight: float | None
    new_weight: float | None


@dataclass(slots=True)
class Rescoring:
    """What changed. Feed it with `add`, read the figures when done.

    episodes, turns: what was looked at; scored: turns with a reward, before and after.
    ungraded: turns that have no reward, because editor or judge failed; they stay without.
    largest_difference: of a total, in absolute value; 0 exactly means: reproduced to the bit.
    """

    episodes: int = 0
    turns: int = 0
    ungraded: int = 0
    old: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    _terms: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    _weights: dict[str, list[float | None]] = field(default_factory=dict)
    _groups: dict[GroupKey, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def scored(self) -> int:
        return len(self.old)

    @property
    def largest_difference(self) -> float:
        return max((abs(a - b) for a, b in zip(self.old, self.new, strict=True)), default=0.0)

    @property
    def reproduced(self) -> int:
        """Turns whose total came out equal to the last bit."""
        return sum(a == b for a, b in zip(self.old, self.new, strict=True))

    @property
    def old_mean(self) -> float | None:
        return float(np.mean(self.old)) if self.old else None

    @property
    def new_mean(self) -> float | None:
        return float(np.mean(self.new)) if self.new else None

    def terms(self) -> list[TermChange]:
        """Every term of either reward, by name; means over well-formed turns."""
        return [
            TermChange(name, _mean(old), _mean(new), *self._weights[name])
            for name, (old, new) in sorted(self._terms.items())
        ]

    def sign_flips(self) -> tuple[int, int]:
        """How many turns would be pushed the other way, and out of how many.

        Compares the sign of "total minus the mean of the siblings at the same state" under both
        rewards, over groups of at least two graded siblings; zero to non-zero is no flip.
        """
        flips = members = 0
        old, new = np.asarray(self.old), np.asarray(self.new)
        for indices in self._groups.values():
            if len(indices) > 1:
                before, after = old[indices], new[indices]
                signs = np.sign(before - before.mean()) * np.sign(after - after.mean())
                flips += int((signs < 0).sum())
                members += len(indices)
        return flips, members

    def add(self, episode: Episode, turn: Turn, new: RewardBreakdown) -> None:
        old = turn.reward
        assert old is not None
        self._groups[(episode.step, episode.group, turn.state_key)].append(len(self.old))
        self.old.append(old.total)
        self.new.append(new.total)
        for side, reward in enumerate((old, new)):
            for name, weight in reward.weights.items():
                self._weights.setdefault(name, [None, None])[side] = weight
                values = self._terms.setdefault(name, ([], []))
                if turn.critique is not None:
                    values[side].append(reward.terms[name])


def rescore(
    episodes: Iterable[Episode], rubric: Rubric, *, accept_at: float, into: Rescoring
) -> Iterator[Episode]:
    """The same episodes with the rewards that `rubric` gives; `into` collects what changed.

    A turn that nobody could grade keeps its outcome and stays without a reward.

    Args:
        accept_at: the run's acceptance threshold, which terms may look at.

    Raises:
        JudgeMismatch: a turn holds verdicts of two judges.
    """
    for episode in episodes:
        into.episodes += 1
        turns = []
        for turn in episode.turns:
            into.turns += 1
            if turn.outcome.valid:
                new = rubric(evidence_of(turn, accept_at))
                into.add(episode, turn, new)
                turns.append(changed(turn, reward=new))
            else:
                into.ungraded += 1
                turns.append(turn)
        yield changed(episode, turns=turns)


def evidence_of(turn: Turn, accept_at: float) -> Evidence:
    """What a reward may depend on, as it was when the turn was played."""
    return Evidence(
        critique=turn.critique, before=turn.before, after=turn.after, kept=turn.kept, accept_at=accept_at
    )


def largest_difference(episodes: Iterable[Episode], rubric: Rubric, *, accept_at: float) -> tuple[int, float]:
    """Turns with a reward, and how far the farthest logged total is from what `rubric` gives.

    A graded turn without a reward counts as infinitely far off.
    """
    turns, largest = 0, 0.0
    for episode in episodes:
        for turn in episode.turns:
            if turn.outcome.valid:
                turns += 1
                logged = inf if turn.reward is None else turn.reward.total
                largest = max(largest, abs(rubric(evidence_of(turn, accept_at)).total - logged))
    return turns, largest


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None

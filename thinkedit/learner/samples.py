"""What the learner knows of one sample (one turn) beside its tokens, and the figures made of it.

The agent loop writes a `TurnRecord` into verl's `extra_fields`; the trainer reads it back. Plain
Python and numpy: no torch, no verl.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from thinkedit.configs.schema import FailuresConfig
from thinkedit.errors import ThinkEditError
from thinkedit.learner.advantages import Rows
from thinkedit.types import Outcome

EXTRA_FIELD = "thinkedit"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """One turn as the learner counts it.

    group: siblings share it.
    reward: None exactly when nobody could make or grade the edit; never a stand-in.
    before, after: overall scores O of the edit it saw and of the edit it caused; None if unknown.
    flags: the judge's guards that its edit set off.
    final: whether it is the last turn of its episode.
    settled: part of the reward that think and score alone decided.
    answer_from: first reply token that comes after them; `reply_tokens` where a reply has no answer.
    """

    group: str
    episode: str
    turn: int
    state_key: str
    outcome: str
    reward: float | None
    terms: Mapping[str, float] = field(default_factory=dict)
    before: float | None = None
    after: float | None = None
    flags: Sequence[str] = ()
    kept: bool = False
    final: bool = True
    reply_tokens: int = 0
    policy_version: int = -1
    settled: float = 0.0
    answer_from: int = 0

    @property
    def valid(self) -> bool:
        return self.reward is not None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"terms": dict(self.terms)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TurnRecord:
        return cls(**{f.name: data[f.name] for f in fields(cls)})


class TooManyFailures(ThinkEditError):
    """The editor or the judge fails so often that going on would only waste the budget."""


def step_metrics(records: Sequence[TurnRecord]) -> dict[str, float]:
    """Figures of one training step; failures are counted, and left out of every mean.

    Names: reward/<term>/mean, outcome/<outcome>, judge/flagged/<guard> (share of the new edits that set
    a guard off), samples/*, episode/*. A mean over no sample is left out, not zero.
    """
    valid = [r for r in records if r.valid]
    replies = [r for r in records if r.reply_tokens]
    metrics: dict[str, float] = {
        "samples/turns": len(records),
        "samples/episodes": len({r.episode for r in records}),
        "samples/invalid_fraction": 1.0 - len(valid) / len(records) if records else 1.0,
    }
    for outcome, count in Counter(r.outcome for r in records).items():
        metrics[f"outcome/{outcome}"] = count
    if replies:
        metrics["reply/tokens/mean"] = float(np.mean([r.reply_tokens for r in replies]))
        metrics["reply/tokens/max"] = float(np.max([r.reply_tokens for r in replies]))
    if valid:
        metrics["reward/total/mean"] = float(np.mean([r.reward for r in valid]))
        metrics["reply/format_rate"] = float(np.mean([r.outcome == "ok" for r in valid]))
        metrics["reply/keep_rate"] = float(np.mean([r.kept for r in valid]))
        for term in sorted({term for r in valid for term in r.terms}):
            metrics[f"reward/{term}/mean"] = float(np.mean([r.terms[term] for r in valid if term in r.terms]))
    edits = [r for r in valid if r.outcome == "ok" and not r.kept]
    for flag, count in Counter(flag for r in edits for flag in r.flags).items():
        metrics[f"judge/flagged/{flag}"] = count / len(edits)
    ends = [r for r in valid if r.final and r.after is not None]
    starts = [r for r in valid if r.turn == 0 and r.before is not None]
    if ends:
        metrics["episode/overall_end/mean"] = float(np.mean([r.after for r in ends if r.after is not None]))
        metrics["episode/turns/mean"] = float(np.mean([r.turn + 1 for r in ends]))
    if starts:
        metrics["episode/overall_start/mean"] = float(
            np.mean([r.before for r in starts if r.before is not None])
        )
    return metrics


def advantage_rows(records: Sequence[TurnRecord]) -> Rows:
    """The records as the advantage estimators take them, in the same order.

    `improvement` is (O after the turn - O of the start state) / 10; NaN where either is unknown.
    """
    start = {r.episode: r.before for r in records if r.turn == 0}
    unknown = float("nan")

    def improvement(record: TurnRecord) -> float:
        before = start.get(record.episode)
        return unknown if record.after is None or before is None else (record.after - before) / 10.0

    return Rows(
        group=np.array([r.group for r in records]),
        episode=np.array([r.episode for r in records]),
        turn=np.array([r.turn for r in records], dtype=np.int64),
        state=np.array([r.state_key for r in records]),
        reward=np.array([unknown if r.reward is None else r.reward for r in records], dtype=np.float64),
        valid=np.array([r.valid for r in records], dtype=np.bool_),
        improvement=np.array([improvement(r) for r in records], dtype=np.float64),
        settled=np.array([r.settled for r in records], dtype=np.float64),
        malformed=np.array([r.outcome == Outcome.MALFORMED for r in records], dtype=np.bool_),
    )


class FailureGuard:
    """Stops a run whose samples are spoiled too often, or whose budget is spent.

    Nothing is judged before the window is half full, but for a step without any valid sample.
    """

    def __init__(self, config: FailuresConfig | None = None) -> None:
        self._config = config or FailuresConfig()
        self._recent: deque[str] = deque(maxlen=self._config.window)

    def watch(self, records: Sequence[TurnRecord], *, lost: int = 0) -> str | None:
        """Take a step's samples in.

        Args:
            lost: episodes that were started and left no record; each counts as a sample that failed.

        Returns:
            A warning when the fraction of invalid samples is above `warn_at`, else None.

        Raises:
            TooManyFailures: it is above `stop_at`, no sample of the step is valid, or one could not be
                paid for: what is in a cache is free, and a run that went on would learn from that alone.
        """
        self._recent.extend("" if r.valid else r.outcome for r in records)
        self._recent.extend(["lost"] * lost)
        failures = Counter(outcome for outcome in self._recent if outcome)
        fraction = failures.total() / max(1, len(self._recent))
        told = ", ".join(f"{outcome} {count}" for outcome, count in failures.most_common())
        if unpaid := sum(r.outcome == Outcome.BUDGET for r in records):
            raise TooManyFailures(
                f"limits.budget is spent: {unpaid} of this step's {len(records)} samples could not be paid "
                "for. Raise it and start again: the run resumes"
            )
        if records and not any(r.valid for r in records):
            raise TooManyFailures(f"no sample of this step has a reward ({told}); see the trajectories")
        if len(self._recent) * 2 < (self._recent.maxlen or 0):
            return None
        message = f"{fraction:.0%} of the last {len(self._recent)} samples have no reward ({told})"
        if fraction > self._config.stop_at:
            raise TooManyFailures(
                f"{message}; grpo.failures.stop_at is {self._config.stop_at:.0%}. "
                "Mend what fails and start again: the run resumes"
            )
        return message if fraction > self._config.warn_at else None

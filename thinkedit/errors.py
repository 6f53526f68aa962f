"""Every error thinkedit raises on purpose. Messages say what, where and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from thinkedit.types import Outcome


class ThinkEditError(Exception):
    """Base class: `except ThinkEditError` catches what thinkedit raises on purpose."""


class ConfigError(ThinkEditError):
    """A configuration value or key is wrong."""


class UnknownName(ConfigError):
    """A name that no registry, table or config knows; the message offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}.")
        self.kind, self.name, self.known, self.nearest = kind, name, known, near[0] if near else None


class DataError(ThinkEditError):
    """A record on disk is not what its format says; names file, line and field."""


class ServiceError(ThinkEditError):
    """An editor or judge gave no usable result. Carries the outcome of the turn it spoiled."""

    outcome: Outcome


class EditorError(ServiceError):
    """The editor answered with an error or with something that is no image of the right size."""

    outcome = Outcome.EDITOR_FAILED


class JudgeError(ServiceError):
    """The judge could not be reached, refused, or gave no readable verdict."""

    outcome = Outcome.JUDGE_FAILED


class JudgeUnreachable(JudgeError):
    """The judge's server could not be reached, or answered with an error."""


class JudgeRefused(JudgeError):
    """The judge would not grade: a refusal, a content filter, or an empty reply."""


class JudgeUnreadable(JudgeError):
    """The judge replied, but not with two scores in [0, 10]."""


class ServiceTimeout(ServiceError):
    """The editor or judge did not answer within its deadline."""

    outcome = Outcome.TIMEOUT


class BudgetExceeded(ServiceError):
    """The run's limit of calls or money is spent."""

    outcome = Outcome.BUDGET


class JudgeMismatch(ThinkEditError):
    """Verdicts of two different judges (id or prompt hash) met where they are compared."""


class RewardError(ThinkEditError):
    """A reward term gave a number that is not finite or lies outside the bounds it declares."""


class EpisodeOver(ThinkEditError):
    """`step` was called before `start` or after the episode ended."""

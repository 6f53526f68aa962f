"""What a think-while-edit run is asked for, what it makes, and what it tells on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from thinkedit.errors import ConfigError, ThinkEditError, UnknownName
from thinkedit.types import RGB, Scores, Verdict


class Mode(StrEnum):
    """What the thinker does, and when."""

    WHILE = "while"  # critiques each edit and words the next prompt
    BEFORE = "before"  # words the first prompt; one edit, no critique
    BEFORE_WHILE = "before+while"
    EXPERT = "expert"  # as `while`, asked in plain JSON whether it is satisfied; no scores

    @property
    def rewrites(self) -> bool:
        return self in (Mode.BEFORE, Mode.BEFORE_WHILE)

    @property
    def critiques(self) -> bool:
        return self is not Mode.BEFORE

    @property
    def predicts(self) -> bool:
        """Whether critiques come with scores."""
        return self in (Mode.WHILE, Mode.BEFORE_WHILE)


class Select(StrEnum):
    """Which edit is the result. Of equals the earlier one."""

    LAST = "last"
    BEST_PREDICTED = "best_predicted"  # by the thinker's own scores; costs a critique of the last edit
    BEST_JUDGE = "best_judge"  # by the configured judge: an oracle, if the judge also grades the result


class Stop(StrEnum):
    """Why a run ended. The last three are failures; the edits before them are kept."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    TURN_LIMIT = "turn_limit"
    ONE_EDIT = "one_edit"  # all that was asked for: mode `before`, or no turns
    STOPPED = "stopped"  # by whoever watched
    THINKER_UNREADABLE = "thinker_unreadable"  # it replied, but in no try what it was asked for
    THINKER_FAILED = "thinker_failed"  # it gave no reply
    EDITOR_FAILED = "editor_failed"

    @property
    def failed(self) -> bool:
        return self in (Stop.THINKER_UNREADABLE, Stop.THINKER_FAILED, Stop.EDITOR_FAILED)


class ThinkerError(ThinkEditError):
    """The thinker could not be reached, or said nothing usable in all its tries.

    unread: its replies, as they came, none of which could be read.
    """

    def __init__(self, message: str, unread: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.unread = tuple(unread)


class ThinkerUnreadable(ThinkerError):
    """The thinker replied, but in no try what it was asked for: its own fault, not an outage's."""


class SelectionFailed(ThinkEditError):
    """No edit has the scores that the result was to be chosen by."""


class RunStopped(ThinkEditError):
    """The run was stopped before its first edit was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one run is asked for.

    turns: critiques at most; edits are one more at most.
    seed: of every edit of the run; the thinker's randomness follows from it too.
    """

    mode: Mode = Mode.WHILE
    select: Select = Select.LAST
    turns: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: values out of range, or that contradict each other.
        """
        if self.turns < 1:
            raise ConfigError(f"turns must be at least 1, got {self.turns}; mode=before makes a single edit")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")
        if self.mode is Mode.BEFORE and self.select is not Select.LAST:
            raise ConfigError(f"select={self.select}: mode=before makes one edit, there is no choice")
        if self.select is Select.BEST_PREDICTED and not self.mode.predicts:
            raise ConfigError(f"select=best_predicted: in mode={self.mode} the thinker predicts no scores")

    @classmethod
    def named(cls, mode: str, select: str, *, turns: int, seed: int) -> Options:
        """From the names that configurations and pages use.

        Raises:
            UnknownName: no such mode or selection.
            ConfigError: see above.
        """
        if mode not in list(Mode):
            raise UnknownName("mode", mode, [known.value for known in Mode])
        if select not in list(Select):
            raise UnknownName("selection", select, [known.value for known in Select])
        return cls(mode=Mode(mode), select=Select(select), turns=turns, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """What a thinker said, read.

    reason: why. prompt: what the editor should be told next; None where it keeps the edit it saw.
    predicted: its scores of that edit; None where it gives none.
    end: ACCEPTED or REPEATED where it keeps the edit.
    reply: the completion as it came. model: as its server names the one that gave it.
    faults: what was wrong with the replies before it. unread: those replies, as they came.
    """

    reason: str
    prompt: str | None
    predicted: Scores | None
    end: Stop | None
    reply: str
    model: str | None = None
    faults: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """One edit, and what was said of it.

    index: 0 for the first edit.
    thought: the thinker's critique of it; None where it was not asked, or failed.
    verdict: the judge's; None where nobody asked it, or it failed (then `judge_fault` says how).
    """

    index: int
    prompt: str
    image: RGB
    seconds: float
    thought: Thought | None = None
    verdict: Verdict | None = None
    judge_fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EditResult:
    """A finished run.

    source: the picture as every part of the run saw it.
    rewrite: the thinker's first prompt, in the modes that have one.
    attempts: every edit, in order; at least one.
    chosen: index of the result among them; None where it was to be chosen by scores that no edit has.
    detail: what failed, for people; empty when nothing did.
    unread: the thinker's replies, as they came, where it failed because it could not be read.
    about: who edited, thought and judged, with their settings.
    """

    source: RGB
    instruction: str
    options: Options
    rewrite: Thought | None
    attempts: tuple[Attempt, ...]
    chosen: int | None
    stop: Stop
    detail: str = ""
    unread: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> Attempt:
        """The edit that was chosen.

        Raises:
            SelectionFailed: none was.
        """
        if self.chosen is None:
            raise SelectionFailed(self.detail)
        return self.attempts[self.chosen]

    @property
    def image(self) -> RGB:
        """The chosen edit's picture; raises as `result`."""
        return self.result.image

    @property
    def prompt(self) -> str:
        """The prompt that it was made with; raises as `result`."""
        return self.result.prompt


# --- what a run tells while it goes on ---------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Started:
    source: RGB
    instruction: str
    options: Options


@dataclass(frozen=True, slots=True)
class Working:
    """Somebody is at work now: "editor", "thinker" or "judge"."""

    who: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    thought: Thought


@dataclass(frozen=True, slots=True, eq=False)
class Edited:
    attempt: Attempt


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The attempt, now with a verdict or the judge's fault."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, eq=False)
class Critiqued:
    """The attempt, now with the thinker's critique."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """Nothing follows. Where no edit could be chosen, the run raises `SelectionFailed` after telling this."""

    result: EditResult


Event = Started | Working | Rewritten | Edited | Judged | Critiqued | Finished

"""Plain data shared by every room. Nothing here imports another thinkedit module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]
"""An image: uint8, shape (H, W, 3), values 0-255."""

SCORE_MIN, SCORE_MAX = 0.0, 10.0

JudgeIdentity = tuple[str, str]
"""`judge_id` and `prompt_hash` of a verdict: scores are comparable only where both are equal."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Two marks of one edited image against the original instruction, each in [0, 10].

    semantic: the instruction was followed and nothing else changed.
    quality: the picture is natural and free of artefacts.
    """

    semantic: float
    quality: float

    @property
    def overall(self) -> float:
        """O = sqrt(semantic * quality), in [0, 10] (VIEScore's geometric mean)."""
        return sqrt(self.semantic * self.quality)

    @property
    def lowest(self) -> float:
        return min(self.semantic, self.quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judge's scores with what is needed to never mix two judges.

    judge_id: name and revision of the judge.
    prompt_hash: hash of everything that shapes its marks (prompt, rubric, sampling).
    lasting: the same question would get the same answer later, so that a cache may keep it. False where an
        outage or what was asked before has its share in it.
    """

    scores: Scores
    judge_id: str
    prompt_hash: str
    notes: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = True

    @property
    def identity(self) -> JudgeIdentity:
        return self.judge_id, self.prompt_hash


class Outcome(StrEnum):
    """How one turn went. Only MALFORMED is the policy's own fault and may cost reward."""

    OK = "ok"
    MALFORMED = "malformed"
    EDITOR_FAILED = "editor_failed"
    JUDGE_FAILED = "judge_failed"
    TIMEOUT = "timeout"
    BUDGET = "budget"
    ROLLOUT_FAILED = "rollout_failed"  # the thinker's engine, or whatever else plays the episode

    @property
    def valid(self) -> bool:
        """Whether the turn has a reward (OK and MALFORMED do, failures never)."""
        return self in (Outcome.OK, Outcome.MALFORMED)


class End(StrEnum):
    """Why an episode ended.

    ACCEPTED and REPEATED are the thinker's choice (terminated), TURN_LIMIT is truncation
    (termination when the limit is one turn), FAILED means nobody could grade the last turn.
    """

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    TURN_LIMIT = "turn_limit"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """A source image and what the user wants done to it.

    uid: unique and stable over runs.
    task_type: e.g. "recolour"; used for balance and for tables.
    reference: free to the task source (ground truth for exact judges and scripted experts).
    """

    uid: str
    source: RGB
    instruction: str
    task_type: str = "unknown"
    split: str = "train"
    reference: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredState:
    """A state to start an episode from: the edit that `prompt` gave, with its verdict.

    verdict: None where nobody knows which judge graded the edit; the episode's own then does, at the start.
    With a horizon of one turn this is the one-step regime of the EditThinker paper.
    """

    task: Task
    edited: RGB
    prompt: str
    verdict: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canary:
    """Two edits of one source whose order is known: any judge must prefer `better` to `worse`.

    kind: what is wrong with the worse one.
    """

    kind: str
    source: RGB
    better: RGB
    worse: RGB
    instruction: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """What the thinker sees before turn `turn` (0-based)."""

    source: RGB
    edited: RGB
    instruction: str
    prompt: str
    turn: int
    turns_left: int


@dataclass(frozen=True, slots=True)
class Critique:
    """A well-formed reply: reasoning, predicted scores of the edit it saw, next prompt."""

    think: str
    scores: Scores
    answer: str


class ParseError(StrEnum):
    """Why a reply is malformed; the first fault found from left to right."""

    MISSING_THINK = "missing_think"
    MISSING_SCORE = "missing_score"
    MISSING_ANSWER = "missing_answer"
    DUPLICATE = "duplicate"
    ORDER = "order"
    EXTRA_TEXT = "extra_text"
    THINK_EMPTY = "think_empty"
    SCORE_JSON = "score_json"
    SCORE_KEY = "score_key"
    SCORE_TYPE = "score_type"
    SCORE_RANGE = "score_range"
    ANSWER_EMPTY = "answer_empty"
    ANSWER_TOO_LONG = "answer_too_long"
    ANSWER_PLACEHOLDER = "answer_placeholder"
    SPECIAL_TOKEN = "special_token"
    NOT_UNICODE = "not_unicode"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardBreakdown:
    """total = sum of weight * term over `weights`; raw terms are kept beside it."""

    total: float
    terms: Mapping[str, float]
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """One critique and, unless it kept the edit, one new edit.

    index: 0-based turn.
    prompt: the prompt whose edit the thinker looked at.
    reply: the completion exactly as sampled.
    critique: None when malformed.
    before: verdict of the edit it saw.
    after: verdict of the edit it caused; `before` again when the edit was kept or the
        reply malformed; None when nobody could make or grade it.
    edited: the edit after this turn (the one before it when kept, malformed or failed).
    reward: None exactly when `outcome.valid` is False. Never a stand-in number.
    kept: whether the reply kept the current edit (no editor call).
    state_key: equal for two turns exactly when source, instruction, current edit and
        prompt are equal; advantage estimators compare siblings by it.
    detail: what went wrong, for people; empty when nothing did.
    """

    index: int
    prompt: str
    reply: str
    critique: Critique | None
    error: ParseError | None
    outcome: Outcome
    before: Verdict
    after: Verdict | None
    edited: RGB
    reward: RewardBreakdown | None
    kept: bool
    terminated: bool
    truncated: bool
    end: End | None
    state_key: str
    detail: str = ""

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a reply was sampled by the policy; kept beside the turn, not part of it.

    token_ids, logprobs: [T], completion only; logprobs in nats under the sampling weights.
    policy_version: learner step whose weights sampled it.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: int


@dataclass(slots=True, kw_only=True, eq=False)
class Episode:
    """A finished (or failed) episode, as the trajectory store keeps it.

    group: siblings share it, and with it task, start state, first edit and editor seed.
    first: verdict of the start state's edit; None when even that could not be made.
    timings: seconds by phase ("edit_s", "judge_s", "policy_s"); never part of `info`.
    """

    uid: str
    group: str
    task: Task
    seed: int
    first_edit: RGB | None
    first: Verdict | None
    turns: list[Turn] = field(default_factory=list)
    sampling: list[Sampling] = field(default_factory=list)
    outcome: Outcome = Outcome.OK
    timings: dict[str, float] = field(default_factory=dict)
    step: int = -1
    tags: dict[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> Verdict | None:
        """Verdict of the image the episode ends with; None if it could not be graded."""
        return self.turns[-1].after if self.turns else self.first

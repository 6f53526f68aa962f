"""The closed loop as a state machine: look at an edit, critique it, edit again, be judged.

The Gymnasium environments, the vector environment and the rollout actors all drive this one
class, so that the same start, seed and replies give the same episode through each of them.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from thinkedit.configs.schema import EpisodeConfig
from thinkedit.envs.editors.base import Editor, EditRequest
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.services import JudgeRequest, Services, frozen
from thinkedit.errors import ConfigError, DataError, EpisodeOver, ServiceError
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.rubric import Rubric, refuse_other_members, refuse_stored
from thinkedit.rewards.terms import Evidence
from thinkedit.types import (
    RGB,
    Critique,
    End,
    Episode,
    Observation,
    Outcome,
    ParseError,
    RewardBreakdown,
    StoredState,
    Task,
    Turn,
    Verdict,
)

T = TypeVar("T")

Answer = RGB | Verdict | ServiceError
Plan = Generator[EditRequest | JudgeRequest, Answer, T]
"""What a start or a step needs from editor and judge: it yields requests and is sent the answers.

A session drives its own plan; the vector environment drives many side by side and makes one
batch of their requests.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """An edit, the prompt that gave it, and what the judge says of it."""

    edited: RGB
    prompt: str
    verdict: Verdict


class EditSession:
    """One episode at a time.

    Every edit starts from the source image, with the episode's one seed. An episode ends
    *terminated* when the thinker keeps the edit (both predicted scores reach `accept_at`, or it
    repeats the prompt), *truncated* at the turn limit (a one-turn episode terminates there), and
    truncated with `End.FAILED` when nobody could make or grade an edit.

    Args:
        edit_timeout_s, judge_timeout_s: deadline of one edit and of one verdict.

    Raises:
        ConfigError: the protocol tells the thinker another threshold than the episode applies.
    """

    def __init__(
        self,
        editor: Editor,
        judge: Judge,
        rubric: Rubric,
        protocol: Protocol,
        episode: EpisodeConfig | None = None,
        *,
        edit_timeout_s: float = 120.0,
        judge_timeout_s: float = 120.0,
    ) -> None:
        episode = episode or EpisodeConfig()
        if episode.max_turns < 1:
            raise ConfigError(f"episode.max_turns must be at least 1, got {episode.max_turns}")
        if protocol.accept_at != episode.accept_at:
            raise ConfigError(
                f"the protocol names the threshold {protocol.accept_at:g}, the episode applies "
                f"episode.accept_at={episode.accept_at:g}: build Protocol(..., accept_at=episode.accept_at)"
            )
        self.services = Services(editor, judge, edit_timeout_s, judge_timeout_s)
        self.rubric, self.protocol, self.config = rubric, protocol, episode
        self._task: Task | None = None

    # --- driving ---------------------------------------------------------------------------

    async def start(self, start: Task | StoredState, seed: int) -> Observation:
        """Begin an episode: make and judge edit 0 of a task, or take up a stored state (and judge it, if
        it has no verdict).

        Args:
            seed: the editor's seed for the whole episode; siblings of a group share it.

        Raises:
            ServiceError: the edit could not be made or judged; `episode()` then holds the outcome.
            DataError: the source is no RGB image, the instruction is empty, or `episode.start` is
                "stored" and a bare task came.
            JudgeMismatch: the stored state was graded by another judge than this session's.
        """
        return await self.drive(self.start_plan(start, seed))

    async def step(self, reply: str) -> Turn:
        """One turn. Failures of editor or judge are the turn's outcome, they are not raised.

        Raises:
            EpisodeOver: not started, or already over.
            JudgeMismatch: the same, of a judge whose identity only a verdict tells.
        """
        return await self.drive(self.step_plan(reply))

    async def drive(self, plan: Plan[T]) -> T:
        """Answer a plan's requests, one after another, until it is done."""
        try:
            request = next(plan)
            while True:
                request = plan.send(await self.services.call(request))
        except StopIteration as finished:
            return cast(T, finished.value)

    # --- what is known ---------------------------------------------------------------------

    @property
    def task(self) -> Task:
        if self._task is None:
            raise EpisodeOver("no episode yet: call start first")
        return self._task

    @property
    def done(self) -> bool:
        """Whether no further step is possible (also before the first start)."""
        return self._task is None or self._state is None or self._over

    @property
    def observation(self) -> Observation:
        """What the thinker sees now. Its images are read-only."""
        state, turn = self._present, len(self._turns)
        return Observation(
            source=self._source,
            edited=state.edited,
            instruction=self.task.instruction,
            prompt=state.prompt,
            turn=turn,
            turns_left=self.config.max_turns - turn,
        )

    @property
    def verdict(self) -> Verdict:
        """The judge's verdict of the current edit; the thinker never sees it."""
        return self._present.verdict

    @property
    def state_key(self) -> str:
        """Digest of source, instruction, current edit and prompt; see `Turn.state_key`."""
        state, digest = self._present, hashlib.sha256()
        for image in (self._source, state.edited):
            digest.update(repr(image.shape).encode())
            digest.update(np.ascontiguousarray(image).data)
        for text in (self.task.instruction, state.prompt):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()[:32]

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(self._turns)

    @property
    def seed(self) -> int:
        """The editor's seed of this episode."""
        return self._seed

    def episode(
        self,
        *,
        uid: str | None = None,
        group: str | None = None,
        step: int = -1,
        tags: Mapping[str, Any] | None = None,
    ) -> Episode:
        """The episode so far, for the recorder.

        Args:
            uid: unique name; None draws one.
            group: shared by siblings; None is task and seed, which siblings share.
            step: learner step it was played at.
        """
        task = self.task
        return Episode(
            uid=uid or uuid.uuid4().hex,
            group=group or f"{task.uid}/{self._seed}",
            task=task,
            seed=self._seed,
            first_edit=self._first_edit,
            first=self._first,
            turns=list(self._turns),
            outcome=self._outcome,
            timings=dict(self._timings),
            step=step,
            tags=dict(tags or {}),
        )

    # --- the state machine -----------------------------------------------------------------

    def start_plan(self, start: Task | StoredState, seed: int) -> Plan[Observation]:
        """`start` as a plan."""
        task = start.task if isinstance(start, StoredState) else start
        _check_task(task)
        if self.config.start == "stored" and not isinstance(start, StoredState):
            raise DataError(
                f"task {task.uid!r} has no stored edit, and episode.start=stored: take a task source that "
                "gives stored states, or episode.start=fresh to make edit 0 from the instruction"
            )
        self._task, self._seed = task, seed
        self._source = frozen(task.source)
        self._state: _State | None = None
        self._first_edit: RGB | None = None
        self._first: Verdict | None = None
        self._turns: list[Turn] = []
        self._timings = {"edit_s": 0.0, "judge_s": 0.0}
        self._outcome, self._over = Outcome.OK, False
        verdict: Verdict | None = None
        try:
            if isinstance(start, StoredState):
                _check_stored(start)
                prompt, verdict = start.prompt, start.verdict
                edited = self._first_edit = frozen(start.edited)
                if verdict is not None:
                    refuse_stored(verdict, self.services.judge)
            else:
                prompt = task.instruction
                edited = self._first_edit = yield from self._edit(prompt)
            if verdict is None:
                verdict = yield from self._judge(edited)
        except ServiceError as error:
            self._outcome, self._over = error.outcome, True
            raise
        self._first = verdict
        self._state = _State(edited=edited, prompt=prompt, verdict=verdict)
        return self.observation

    def step_plan(self, reply: str) -> Plan[Turn]:
        """`step` as a plan."""
        if self.done:
            raise EpisodeOver("the episode is over, or was never started: call start")
        state = self._present
        read = self.protocol.parse(reply, state.prompt)
        if isinstance(read, ParseError):
            evidence = Evidence(critique=None, before=state.verdict, accept_at=self.config.accept_at)
            return self._finish(reply, None, state, self.rubric(evidence), error=read)
        end = self.protocol.ending(read, state.prompt)
        if end is not None:
            return self._finish(reply, read, state, self._reward(read, state.verdict, kept=True), end=end)
        try:
            edited = yield from self._edit(read.answer)
            verdict = yield from self._judge(edited)
            refuse_other_members(state.verdict, verdict, self.services.judge)
        except ServiceError as failure:
            return self._finish(reply, read, None, None, failure=failure)
        after = _State(edited=edited, prompt=read.answer, verdict=verdict)
        return self._finish(reply, read, after, self._reward(read, verdict, kept=False))

    def _edit(self, prompt: str) -> Generator[EditRequest, Answer, RGB]:
        began = time.perf_counter()
        answer = yield EditRequest(self._source, prompt, self._seed)
        self._timings["edit_s"] += time.perf_counter() - began
        if isinstance(answer, ServiceError):
            raise answer
        assert isinstance(answer, np.ndarray), "an edit request is answered by an image"
        return answer

    def _judge(self, edited: RGB) -> Generator[JudgeRequest, Answer, Verdict]:
        began = time.perf_counter()
        answer = yield JudgeRequest(self._source, edited, self.task.instruction)
        self._timings["judge_s"] += time.perf_counter() - began
        if isinstance(answer, ServiceError):
            raise answer
        assert isinstance(answer, Verdict), "a judge request is answered by a verdict"
        return answer

    def _reward(self, critique: Critique, after: Verdict, *, kept: bool) -> RewardBreakdown:
        before, accept_at = self._present.verdict, self.config.accept_at
        evidence = Evidence(critique=critique, before=before, after=after, kept=kept, accept_at=accept_at)
        return self.rubric(evidence)

    def _finish(
        self,
        reply: str,
        critique: Critique | None,
        after: _State | None,
        reward: RewardBreakdown | None,
        *,
        end: End | None = None,
        error: ParseError | None = None,
        failure: ServiceError | None = None,
    ) -> Turn:
        """Write the turn down and move to the state after it (None: nobody could make or grade it)."""
        before, index, kept = self._present, len(self._turns), end is not None
        last = index + 1 >= self.config.max_turns
        if failure is not None:
            outcome, end = failure.outcome, End.FAILED
        else:
            outcome = Outcome.MALFORMED if error is not None else Outcome.OK
            if end is None and last:
                end = End.TURN_LIMIT
        # Gymnasium's checker refuses truncation on the first step: a one-turn episode terminates.
        terminated = kept or (end is End.TURN_LIMIT and self.config.max_turns == 1)
        turn = Turn(
            index=index,
            prompt=before.prompt,
            reply=reply,
            critique=critique,
            error=error,
            outcome=outcome,
            before=before.verdict,
            after=None if after is None else after.verdict,
            edited=before.edited if after is None else after.edited,
            reward=reward,
            kept=kept,
            terminated=terminated,
            truncated=end is not None and not terminated,
            end=end,
            state_key=self.state_key,
            detail="" if failure is None else str(failure),
        )
        self._turns.append(turn)
        self._over = turn.done
        if after is None:
            self._outcome = outcome
        else:
            self._state = after
        return turn

    @property
    def _present(self) -> _State:
        if self._task is None or self._state is None:
            raise EpisodeOver("no edit to look at: call start first (and see its error)")
        return self._state


def _check_task(task: Task) -> None:
    source = task.source
    if not isinstance(source, np.ndarray) or source.dtype != np.uint8:
        raise DataError(f"task {task.uid!r}: source must be a uint8 array")
    if source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
        raise DataError(f"task {task.uid!r}: source must have shape (H, W, 3), got {source.shape}")
    if not task.instruction.strip():
        raise DataError(f"task {task.uid!r}: the instruction is empty")


def _check_stored(state: StoredState) -> None:
    edited, source = state.edited, state.task.source
    if not isinstance(edited, np.ndarray) or edited.dtype != np.uint8 or edited.shape != source.shape:
        raise DataError(f"task {state.task.uid!r}: the stored edit must be uint8 of the source's shape")

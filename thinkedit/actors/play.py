"""Plays episodes: a policy replies, the session edits and judges, until the episode ends.

This is the one episode loop. Evaluation, demonstrations, inference and the training rollouts
differ only in the policy they hand in and in where the finished episodes go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from thinkedit.envs.session import EditSession
from thinkedit.errors import BudgetExceeded, ServiceError
from thinkedit.types import Episode, Observation, Outcome, Sampling, StoredState, Task, Verdict


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """What a scripted policy may look at besides the observation; a learned one ignores it.

    verdict: the judge's verdict of the edit in the observation; None where nobody judges.
    seed: the episode's seed; policies derive their own randomness from it and the turn.
    """

    task: Task
    verdict: Verdict | None
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion, with how it was sampled where the policy is a model.

    model: as its server names the one that replied; None without a server, or where it doesn't say.
    """

    text: str
    sampling: Sampling | None = None
    model: str | None = None


class Policy(Protocol):
    """Anything that answers an observation with a reply text."""

    async def reply(self, observation: Observation, context: Context) -> Reply: ...


async def play(
    session: EditSession, start: Task | StoredState, seed: int, policy: Policy, *, group: str, step: int = -1
) -> Episode:
    """One episode from start to end. Failures of editor or judge end it typed, they never raise.

    Returns:
        The episode; `episode.outcome` says whether it may be learned from.
    """
    samplings: list[Sampling] = []
    policy_s = 0.0
    # Only `start` raises a ServiceError; the session has then recorded the outcome in the episode.
    with suppress(ServiceError):
        observation = await session.start(start, seed)
        while not session.done:
            verdict = session.verdict
            context = Context(task=session.task, verdict=verdict, seed=seed)
            began = time.perf_counter()
            reply = await policy.reply(observation, context)
            policy_s += time.perf_counter() - began
            if reply.sampling is not None:
                samplings.append(reply.sampling)
            await session.step(reply.text)
            observation = session.observation
    episode = session.episode(group=group, step=step)
    episode.sampling = samplings
    episode.timings["policy_s"] = policy_s
    return episode


async def play_many(
    make_session: Callable[[], EditSession],
    starts: Iterable[tuple[Task | StoredState, int]],
    policy: Policy,
    *,
    concurrency: int = 64,
) -> AsyncIterator[Episode]:
    """Episodes as they finish, `concurrency` in flight; each waits only for its own calls.

    Args:
        starts: (start, seed) pairs; the group of each is its task's uid and its seed.

    Raises:
        BudgetExceeded: an episode could not be paid for, nor could those after it.
    """
    gate = asyncio.Semaphore(concurrency)

    async def one(start: Task | StoredState, seed: int) -> Episode:
        async with gate:
            task = start.task if isinstance(start, StoredState) else start
            return await play(make_session(), start, seed, policy, group=f"{task.uid}/{seed}")

    pending = {asyncio.ensure_future(one(start, seed)) for start, seed in starts}
    try:
        for finished in asyncio.as_completed(pending):
            episode = await finished
            if episode.outcome is Outcome.BUDGET:
                raise BudgetExceeded(
                    "limits.budget is spent; raise it and start again: what is finished is kept"
                )
            yield episode
    finally:
        for task in pending:
            task.cancel()

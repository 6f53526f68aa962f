"""Plays the arms of an evaluation: the same held-out tasks and seeds under different thinkers.

Arms: `naive_expert` (good practice, does not know the editor's quirks), `aware_expert` (knows
them: an upper bound), and any policy folder under its own name. The single edit needs no arm of
its own: every episode starts with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Self

from thinkedit.actors.play import Policy, play_many
from thinkedit.actors.policy import ScriptedPolicy, VLLMPolicy
from thinkedit.actors.store import TrajectoryStore
from thinkedit.envs.build import Parts
from thinkedit.envs.world.experts import EXPERTS


class Thinkers:
    """The policies of an evaluation, one after another; all models share one vLLM engine if they can.

    Use as an async context manager; the engine starts with the first model that is asked for.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._served: VLLMPolicy | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._served is not None:
            await self._served.__aexit__()
            self._served = None

    async def get(self, arm: str, path: Path | None) -> Policy:
        """The policy of an arm, good until the next call: a scripted expert, or the model in `path`."""
        config = self._parts.config
        if path is None:
            return ScriptedPolicy(EXPERTS[arm].from_parts(self._parts), seed=config.eval.seed)
        if self._served is not None and self._served.can_load(path):
            await self._served.load(path)
            return self._served
        await self.__aexit__()
        policy = VLLMPolicy(
            path,
            self._parts.protocol,
            config.policy,
            config.rollout,
            config.cluster,
            temperature=config.eval.temperature,
        )
        self._served = await policy.__aenter__()
        return policy


async def play_arm(
    parts: Parts,
    arm: str,
    policy: Policy,
    folder: Path,
    *,
    split: str = "test",
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Play `config.eval.tasks` held-out tasks under one arm and store the episodes in `folder`.

    Args:
        folder: a trajectory store; written whole or not at all.

    Returns:
        The number of episodes stored.
    """
    config = parts.config
    starts = [
        (parts.tasks.start(split, index), config.eval.seed + index) for index in range(config.eval.tasks)
    ]
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted evaluation left
    store = TrajectoryStore(partial, writer=arm)
    done = 0
    async for episode in play_many(parts.session, starts, policy, concurrency=config.rollout.concurrency):
        episode.tags["arm"] = arm
        store.append(episode)
        progress(done := done + 1)
    store.close()
    partial.rename(folder)
    return done

"""A worker process of a run with limits: judges, or plays episodes, as a rollout worker does."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic

import numpy as np
from plain import Insists

from thinkedit.actors.limits import cluster_limiter
from thinkedit.actors.play import play
from thinkedit.configs.schema import Config
from thinkedit.envs.build import Parts


class LimitedWorker:
    """As a Ray actor. number: no two workers of a test ask the same question."""

    def __init__(self, config: Config, number: int) -> None:
        self._parts = Parts.from_config(config, cluster_limiter(config))
        self._number, self._asked = number, 0

    def judge_for(self, seconds: float, at_once: int) -> int:
        """Verdicts given within `seconds`, always `at_once` of them under way."""
        ends = monotonic() + seconds

        async def one_after_another() -> int:
            done = 0
            while monotonic() < ends:
                self._asked += 1
                source = np.full((8, 8, 3), self._number, np.uint8)
                source[0, 0] = (*divmod(self._asked, 256), 0)
                await self._parts.judge.judge_async(source, source, "paint it blue")
                done += 1
            return done

        async def all_of_them() -> int:
            return sum(await asyncio.gather(*(one_after_another() for _ in range(at_once))))

        return asyncio.run(all_of_them())

    def play(self, episodes: int) -> Counter[str]:
        """How its episodes ended."""

        async def one(index: int) -> str:
            task = self._parts.tasks.task("train", index)
            return str((await play(self._parts.session(), task, 0, Insists(), group=task.uid)).outcome)

        async def all_of_them() -> list[str]:
            first = self._number * episodes
            return await asyncio.gather(*(one(index) for index in range(first, first + episodes)))

        return Counter(asyncio.run(all_of_them()))

    def close(self) -> None:
        self._parts.close()

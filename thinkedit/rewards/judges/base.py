"""The judge contract: who grades an edit."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from thinkedit.rewards.limits.meter import UNMETERED, Meter
from thinkedit.types import RGB, JudgeIdentity, Verdict


class Judge(ABC):
    """Grades an edited image against the user's original instruction, never a rewritten one."""

    Config: ClassVar[type[Any]]
    name: str
    revision: str = "1"
    inline: bool = False
    metered: ClassVar[bool] = False
    """Whether it enters `meter` around its calls; only then can `limits.judge` hold."""
    meter: Meter = UNMETERED
    """For each call that is paid for or limited, every try for itself: `async with self.meter.call(…)`."""

    @abstractmethod
    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        """Return a verdict with both scores in [0, 10].

        Args:
            source, edited: uint8, (H, W, 3), same size. Not modified.
            instruction: the original instruction.

        Raises:
            JudgeError: no readable verdict; there is no default score.
            ServiceTimeout: nothing came back in time.
        """

    async def judge_async(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        """As `judge`, without blocking the event loop."""
        if self.inline:
            return self.judge(source, edited, instruction)
        return await asyncio.to_thread(self.judge, source, edited, instruction)

    def settings(self) -> Mapping[str, Any]:
        """Every setting that changes marks (model, prompt, sampling); part of the cache key."""
        return {}

    def identities(self) -> frozenset[JudgeIdentity] | None:
        """Every identity that its verdicts may bear; None where only a verdict tells.

        Known beforehand, it lets stored scores of another judge be refused before a call is paid.
        """
        return None

    def use_meter(self, meter: Meter) -> None:
        """Called at most once, before the first verdict. A judge that asks others hands it on to them."""
        self.meter = meter

    def close(self) -> None:  # noqa: B027 - most have nothing to release
        """Release resources. May be called twice."""

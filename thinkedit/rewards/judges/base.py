"""The judge contract: who grades an edit."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from thinkedit.types import RGB, JudgeIdentity, Verdict


class Judge(ABC):
    """Grades an edited image against the user's original instruction, never a rewritten one."""

    Config: ClassVar[type[Any]]
    name: str
    revision: str = "1"
    inline: bool = False

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

    def close(self) -> None:  # noqa: B027 - most have nothing to release
        """Release resources. May be called twice."""

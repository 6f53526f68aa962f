"""What judges that ask other judges share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from thinkedit import plugins
from thinkedit.background import BackgroundLoop
from thinkedit.configs.schema import PluginConfig
from thinkedit.errors import JudgeError
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.limits.meter import Meter
from thinkedit.types import RGB, Verdict


class OuterJudge(Judge):
    """Asks `inner`. Subclasses write `judge_async`; blocking calls run it on a loop of their own."""

    def __init__(self, inner: Sequence[Judge]) -> None:
        self.inner = tuple(inner)
        self._background = BackgroundLoop("the judge", JudgeError)

    @abstractmethod
    async def judge_async(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        """As `Judge.judge`, without blocking the event loop."""

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return self._background.run(self.judge_async(source, edited, instruction))

    def use_meter(self, meter: Meter) -> None:
        for judge in self.inner:
            judge.use_meter(meter)

    def close(self) -> None:
        self._background.close()
        for judge in self.inner:
            judge.close()


def built(config: PluginConfig) -> Judge:
    """The judge that a config names.

    Raises:
        ConfigError, UnknownName: as `plugins.build`.
    """
    judge: Judge = plugins.build("judges", config.name, config.options)
    return judge


def described(judge: Judge) -> list[Any]:
    """All that tells a judge from others, for the settings of one that asks it."""
    return [judge.name, judge.revision, dict(judge.settings())]


def account(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON, for the notes of the one that asked for it."""
    return {
        "judge_id": verdict.judge_id,
        "prompt_hash": verdict.prompt_hash,
        "semantic": verdict.scores.semantic,
        "quality": verdict.scores.quality,
        "notes": dict(verdict.notes),
    }

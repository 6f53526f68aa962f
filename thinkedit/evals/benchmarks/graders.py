"""Who answers a benchmark's questions: the model behind a chat judge, or a judge that grades by itself."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from thinkedit.envs.editors.cache import CachedJudge
from thinkedit.errors import ConfigError, JudgeRefused, JudgeUnreadable
from thinkedit.evals.benchmarks.base import Ask, Benchmark, Item
from thinkedit.evals.benchmarks.store import REFUSED, UNREADABLE
from thinkedit.evals.benchmarks.world import write_verdict
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.viescore import VIEScoreJudge
from thinkedit.types import RGB


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came of a question, for the store: see `Row`."""

    reply: str | None
    failure: str = ""
    model: str = ""
    calls: int = 1


class Grader(ABC):
    """Attributes: `id` names its folder and differs whenever replies may; `label` is for people."""

    id: str
    label: str

    @abstractmethod
    async def ask(self, item: Item, ask: Ask, edited: RGB) -> Said:
        """
        Raises:
            ServiceError: nobody could be asked; the next run tries again.
        """


class ChatGrader(Grader):
    """Asks the server of a chat judge the benchmark's questions, with that judge's settings and patience."""

    def __init__(self, judge: VIEScoreJudge, benchmark: Benchmark) -> None:
        """
        Raises:
            ConfigError: the judge averages samples; a benchmark asks each question once.
        """
        settings = dict(judge.settings())
        if settings.pop("samples") != 1:
            raise ConfigError("benchmarks ask each question once: judge.options.samples=1")
        for own in ("prompts", "prompt_hash"):  # of the judge's questions, not the benchmark's
            settings.pop(own)
        self._judge = judge
        self.label = str(settings["model"])
        self.id = _name(self.label, [settings, benchmark.name, benchmark.version])

    async def ask(self, item: Item, ask: Ask, edited: RGB) -> Said:
        heard: list[str] = []

        def read(text: str) -> None:
            heard.append(text)
            ask.read(text)

        who = f"{item.id}, {ask.metric}"
        try:
            answer = await self._judge.ask(
                ask.text, ask.pictures(edited), read, system=ask.system, schema=ask.schema, who=who
            )
        except JudgeUnreadable:
            # Kept as it came: what can't be read today may be tomorrow, and is counted until then.
            if not heard:
                return Said(reply=None, failure=f"{UNREADABLE}: the reply was cut off")
            return Said(reply=heard[-1], calls=len(heard))
        except JudgeRefused as error:
            return Said(reply=None, failure=f"{REFUSED}: {error}")
        return Said(reply=answer.text, model=answer.model, calls=1 + len(answer.faults))


class JudgeGrader(Grader):
    """Lets a judge grade as it does in training; for benchmarks whose one question is a verdict."""

    def __init__(self, judge: Judge, benchmark: Benchmark) -> None:
        self._judge = judge
        self.label = judge.name
        settings = [judge.revision, dict(judge.settings()), benchmark.name, benchmark.version]
        self.id = _name(judge.name, settings)

    async def ask(self, item: Item, ask: Ask, edited: RGB) -> Said:
        source, result = ask.pictures(edited)
        try:
            verdict = await self._judge.judge_async(source, result, item.instruction)
        except JudgeRefused as error:
            return Said(reply=None, failure=f"{REFUSED}: {error}")
        except JudgeUnreadable as error:
            return Said(reply=None, failure=f"{UNREADABLE}: {error}")
        return Said(reply=write_verdict(verdict.scores), model=verdict.judge_id)


def grader_for(judge: Judge, benchmark: Benchmark) -> Grader:
    """
    Raises:
        ConfigError: the benchmark's questions need a model, and this judge has none to ask.
    """
    if not benchmark.by_model:
        return JudgeGrader(judge, benchmark)
    if isinstance(judge, CachedJudge):  # replies are kept in the store, raw
        judge = judge.inner
    if not isinstance(judge, VIEScoreJudge):
        raise ConfigError(
            f"{benchmark.title} asks questions of its own, which judge={judge.name} can't be asked; take "
            "judge=viescore with judge.options.model and judge.options.base_url, or --judge replay:FILE"
        )
    return ChatGrader(judge, benchmark)


def _name(label: str, identity: object) -> str:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label).strip('-')}-{digest}"

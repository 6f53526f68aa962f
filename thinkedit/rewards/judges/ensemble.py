"""Several judges as one: the mean, the lowest or the median of their scores."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from statistics import fmean, median
from typing import Any, ClassVar

from thinkedit.configs.schema import PluginConfig
from thinkedit.errors import ConfigError, JudgeError, ServiceTimeout, UnknownName
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.checked import checked_verdict
from thinkedit.rewards.judges.outer import OuterJudge, account, built, described
from thinkedit.types import RGB, JudgeIdentity, Scores, Verdict

COMBINE: Mapping[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "min": min, "median": median}


@dataclass
class EnsembleConfig:
    judges: list[PluginConfig] = field(default_factory=list)  # each a name and its options
    combine: str = "mean"  # of each score: "mean" | "min" | "median"
    at_least: int | None = None  # judges that must answer; null: all of them
    member_timeout_s: float | None = None  # for each member's verdict; null: none but the whole verdict's


class EnsembleJudge(OuterJudge):
    """Asks its members side by side and combines each score over those that answered.

    A member that fails makes the ensemble fail in the same way, unless `at_least` says that fewer
    are enough. Who answered is part of a verdict's identity, since the mean over two members is
    another judge than the mean over three: scores of the two are never compared, and a verdict that
    lacks a member is not kept beyond the outage.

    Args:
        members: in the place of those that `config.judges` names.
    """

    Config: ClassVar[type[EnsembleConfig]] = EnsembleConfig
    name = "ensemble"
    revision = "1"

    def __init__(self, config: EnsembleConfig, members: Sequence[Judge] | None = None) -> None:
        """
        Raises:
            ConfigError, UnknownName: fewer than two members, the same one twice, or a value that
                can't work.
        """
        if config.combine not in COMBINE:
            raise UnknownName("combine", config.combine, COMBINE)
        super().__init__([built(judge) for judge in config.judges] if members is None else members)
        self._combine = config.combine
        count = len(self.inner)
        if count < 2:
            raise ConfigError(f"judges: an ensemble has two members or more, got {count}")
        self._member_timeout_s = config.member_timeout_s
        if self._member_timeout_s is not None and not self._member_timeout_s > 0:
            raise ConfigError(f"member_timeout_s={self._member_timeout_s}: must be above 0; null for none")
        told = [json.dumps(described(judge), sort_keys=True) for judge in self.inner]
        if len(set(told)) < count:
            raise ConfigError("judges: the same judge twice; to average samples of one use its own option")
        self._needed = count if config.at_least is None else config.at_least
        if not 1 <= self._needed <= count:
            raise ConfigError(f"at_least={config.at_least}: must lie in [1, {count}], the number of judges")
        unknown = [judge.name for judge in self.inner if judge.identities() is None]
        if self._needed < count and unknown:
            raise ConfigError(
                f"at_least={config.at_least}: {', '.join(unknown)} can't tell the identity of verdicts "
                "beforehand (Judge.identities), so an outage could not be told from a changed judge"
            )

    async def judge_async(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        """As `Judge.judge`; `notes["members"]` keep each member's verdict or failure, in order.

        Raises:
            ServiceError: too few members answered; the error of the first that didn't.
            BudgetExceeded: a member's. It is no outage that others could stand in for.
        """
        asked = (self._ask(judge, source, edited, instruction) for judge in self.inner)
        # All are heard before any error is raised: which one it is must not depend on who is faster.
        answers = await asyncio.gather(*asked, return_exceptions=True)
        verdicts: list[Verdict] = []
        failures: list[JudgeError | ServiceTimeout] = []
        notes: list[dict[str, Any]] = []
        for judge, answer in zip(self.inner, answers, strict=True):
            try:
                if isinstance(answer, BaseException):
                    raise answer
                verdicts.append(checked_verdict(answer, judge.name))
            except (JudgeError, ServiceTimeout) as error:
                failures.append(error)
                notes.append({"judge": judge.name, "failed": f"{type(error).__name__}: {error}"})
            else:
                notes.append(account(verdicts[-1]))
        if len(verdicts) < self._needed:
            raise failures[0]
        combine = COMBINE[self._combine]
        judge_id, prompt_hash = self._identity([verdict.identity for verdict in verdicts])
        return Verdict(
            scores=Scores(
                combine([verdict.scores.semantic for verdict in verdicts]),
                combine([verdict.scores.quality for verdict in verdicts]),
            ),
            judge_id=judge_id,
            prompt_hash=prompt_hash,
            notes={"members": notes},
            lasting=not failures and all(verdict.lasting for verdict in verdicts),
        )

    async def _ask(self, judge: Judge, source: RGB, edited: RGB, instruction: str) -> Verdict:
        """A member's verdict. Its silence is its own failure: others may be enough."""
        try:
            async with asyncio.timeout(self._member_timeout_s) as deadline:
                return await judge.judge_async(source, edited, instruction)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ServiceTimeout(
                f"judge {judge.name!r} gave no verdict within member_timeout_s={self._member_timeout_s:g}"
            ) from error

    def identities(self) -> frozenset[JudgeIdentity] | None:
        """One for each set of members that may answer."""
        known = [judge.identities() for judge in self.inner]
        sets = [member for member in known if member is not None]
        if len(sets) < len(known):
            return None
        return frozenset(
            self._identity(identities)
            for size in range(self._needed, len(sets) + 1)
            for chosen in combinations(sets, size)
            for identities in product(*chosen)
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            "combine": self._combine,
            "at_least": self._needed,
            "judges": [described(judge) for judge in self.inner],
        }

    def _identity(self, members: Sequence[JudgeIdentity]) -> JudgeIdentity:
        """Of the scores of these members; their order moves none."""
        told = [self._combine, *sorted(members)]
        prompt_hash = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        names = ", ".join(sorted(judge_id for judge_id, _ in members))
        return f"{self.name}@{self.revision}/{self._combine}({names})", prompt_hash

"""Pairs of edits whose order is known, put to the judge now and then: does it still see?

A judge on the other side of an address can change overnight (another model behind the name, other
pictures let through, a broken picture route) and go on answering politely.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from thinkedit.envs.build import Parts
from thinkedit.envs.editors.cache import CachedJudge
from thinkedit.envs.images import read_rgb
from thinkedit.envs.services import JudgeRequest, Services
from thinkedit.envs.world.canaries import world_pairs
from thinkedit.errors import DataError, ServiceError
from thinkedit.types import RGB, Canary, Verdict

_FIELDS = ("source", "better", "worse", "instruction")


@dataclass(slots=True)
class CanaryReport:
    """How a judge ordered the pairs, by overall score; equal scores are no order, so wrong.

    right, wrong: kinds of the pairs. failed: error by kind, of pairs that got no two verdicts; they
        are in no share. margins: overall of the better edit less that of the worse, by pair judged.
    """

    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)

    @property
    def accuracy(self) -> float | None:
        """Share of the judged pairs that were put in the right order, in [0, 1]; None without any."""
        judged = len(self.right) + len(self.wrong)
        return len(self.right) / judged if judged else None

    def metrics(self) -> dict[str, float]:
        """Figures for a step's log; what nobody judged has no accuracy."""
        metrics = {"judge/canaries/failed": float(len(self.failed))}
        if self.accuracy is not None:
            metrics["judge/canaries/accuracy"] = self.accuracy
            metrics["judge/canaries/margin"] = sum(self.margins) / len(self.margins)
        return metrics

    def alarm(self, warn_below: float) -> str | None:
        """What is wrong, in words; None where nothing is."""
        told = []
        if self.accuracy is not None and self.accuracy < warn_below:
            told.append(
                f"{len(self.wrong)} of {len(self.right) + len(self.wrong)} in the wrong order "
                f"({', '.join(sorted(set(self.wrong)))})"
            )
        if self.failed:
            told.append(f"{len(self.failed)} without a verdict (first: {self.failed[0][1]})")
        return f"the judge no longer sees canary pairs as it should: {'; '.join(told)}" if told else None


class Canaries:
    """The pairs of a configuration and the judge that they are put to, never through its cache.

    Args:
        services: with the judge and its deadline.
    """

    def __init__(self, pairs: Sequence[Canary], services: Services) -> None:
        self.pairs, self._services = tuple(pairs), services

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """As `judge.canaries` says.

        Raises:
            DataError: the file of pairs can't be read, or holds none.
        """
        config = parts.config.judge
        judge = parts.judge.inner if isinstance(parts.judge, CachedJudge) else parts.judge
        settings = config.canaries
        pairs = world_pairs() if settings.file is None else read_pairs(settings.file)
        return cls(
            list(islice(pairs, settings.pairs)),
            Services(parts.editor, judge, parts.config.editor.timeout_s, config.timeout_s),
        )

    async def ask(self) -> CanaryReport:
        """Put every pair to the judge, all at once."""
        requests = [
            JudgeRequest(pair.source, edit, pair.instruction)
            for pair in self.pairs
            for edit in (pair.better, pair.worse)
        ]
        answers = await asyncio.gather(*(self._services.call(request) for request in requests))
        report = CanaryReport()
        for pair, better, worse in zip(self.pairs, answers[::2], answers[1::2], strict=True):
            failure = next((answer for answer in (better, worse) if isinstance(answer, ServiceError)), None)
            if failure is not None:
                report.failed.append((pair.kind, f"{type(failure).__name__}: {failure}"))
                continue
            assert isinstance(better, Verdict), "a judge request is answered by a verdict"
            assert isinstance(worse, Verdict), "a judge request is answered by a verdict"
            margin = better.scores.overall - worse.scores.overall
            report.margins.append(margin)
            (report.right if margin > 0 else report.wrong).append(pair.kind)
        return report


def read_pairs(path: str | Path) -> Iterator[Canary]:
    """Pairs from a JSONL file: `source`, `better` and `worse` are paths of pictures relative to it,
    `instruction` is text; `kind` may tell what is wrong with the worse one.

    Raises:
        DataError: a line is not that, or a picture can't be read or is of another size.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): it splits texts
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: canary pairs can't be read: {error}") from error
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{path}: holds no canary pair")
    for number, line in found:
        yield _pair(line, path, f"{path}:{number}")


def _pair(line: str, path: Path, where: str) -> Canary:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: must be an object with {', '.join(_FIELDS)}")
    texts: dict[str, Any] = {name: record.get(name) for name in _FIELDS}
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: {name}={text!r}: must be a text")
    pictures: dict[str, RGB] = {}
    for name in _FIELDS[:3]:
        pictures[name] = read_rgb(path.parent / texts[name])
        if pictures[name].shape != pictures["source"].shape:
            raise DataError(f"{where}: {name} is of another size than source")
    kind = str(record.get("kind", "own"))
    return Canary(kind=kind, instruction=texts["instruction"], **pictures)

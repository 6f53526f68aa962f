"""EditScore's form of a verdict: reasoning first, then marks on a scale from 0 to 25."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from thinkedit.rewards.judges import editscore_prompts
from thinkedit.rewards.judges.questions import Questions
from thinkedit.rewards.judges.viescore import VIEScoreConfig, VIEScoreJudge


@dataclass
class EditScoreConfig(VIEScoreConfig):
    """As `VIEScoreConfig`, with the defaults of a server of your own."""

    model: str = MISSING  # as the server calls it
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str | None = None


class EditScoreJudge(VIEScoreJudge):
    """As `VIEScoreJudge`, marked from 0 to 25; scores are the marks times 10 / 25.

    EditScore's self-ensemble of n passes is `samples: n` with a temperature above 0.
    """

    Config: ClassVar[type[EditScoreConfig]] = EditScoreConfig
    questions: ClassVar[Questions] = editscore_prompts.QUESTIONS
    name = "editscore"

"""Advantages of whole replies, for tests that don't ask where in a reply a token stands."""

from __future__ import annotations

from thinkedit.configs.schema import AdvantageConfig
from thinkedit.learner.advantages import Diagnostics, Floats, Rows, estimate


def of_reply(rows: Rows, config: AdvantageConfig) -> tuple[Floats, Diagnostics]:
    advantages, diagnostics = estimate(rows, config)
    return advantages.reply[:, 0], diagnostics

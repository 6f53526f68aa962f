"""The tokens a reply must never hold."""

from __future__ import annotations

from typing import Any

MASKED_LOGIT = -1.0e4
"""Finite, so that entropy's p * log p stays a number; exp of it is exactly 0 in every dtype."""


def forbidden_token_ids(tokenizer: Any) -> list[int]:
    """Every special token but the end of the turn.

    A sampled image placeholder cannot be scored again (placeholders and image features no longer
    fit). The trainer and the rollout engine both leave these tokens out of the distribution, so
    that their log-probabilities are those of one and the same policy.
    """
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted((special | set(tokenizer.all_special_ids)) - {tokenizer.eos_token_id})

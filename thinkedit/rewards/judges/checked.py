"""What a judge is asked and what it returns are looked at before they count."""

from __future__ import annotations

from math import isfinite

import numpy as np

from thinkedit.errors import JudgeError
from thinkedit.types import RGB, SCORE_MAX, SCORE_MIN, Verdict


def check_question(source: RGB, edited: RGB, instruction: str) -> None:
    """
    Raises:
        JudgeError: no two pictures of one size with an instruction.
    """
    for name, image in (("source", source), ("edited", edited)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise JudgeError(f"{name} must be uint8 of shape (H, W, 3), got {image.dtype} {image.shape}")
    if source.shape != edited.shape:
        raise JudgeError(f"source and edited must be of one size, got {source.shape} and {edited.shape}")
    if not instruction.strip():
        raise JudgeError("an empty instruction can't be judged")


def checked_verdict(verdict: object, judge: str) -> Verdict:
    """
    Raises:
        JudgeError: not a `Verdict` with two finite scores in [0, 10].
    """
    if not isinstance(verdict, Verdict):
        raise JudgeError(f"judge {judge!r} must return a Verdict, got {type(verdict).__name__}")
    for axis in ("semantic", "quality"):
        score = getattr(verdict.scores, axis, None)
        if isinstance(score, bool) or not isinstance(score, int | float):  # stored as JSON, so no other kind
            raise JudgeError(f"judge {judge!r} gave {axis}={score!r}; scores are Python's own numbers")
        if not (isfinite(score) and SCORE_MIN <= score <= SCORE_MAX):
            raise JudgeError(f"judge {judge!r} gave {axis}={score}; scores lie in [0, 10]")
    return verdict

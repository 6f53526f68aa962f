"""Reads the two marks out of a judge's reply, whatever it wrapped them in. Never guesses one."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any, NoReturn

from thinkedit.types import SCORE_MAX

MAX_CHARS = 100_000  # nobody explains two marks at this length; keeps the work bounded

_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_SCORE_LIST = re.compile(r"""["'“”]score["'“”]\s{0,9}:\s{0,9}\[([^\[\]{}]{0,200})\]""")
_END = re.compile(r"(?:\s*,(?=\s*\}))?[\s}]*(?:```\s*)?")  # of a reply, after its list
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}(\.[0-9]{1,17})?")


def read_marks(text: str, top: float = SCORE_MAX) -> tuple[float, float]:
    """The two marks of a reply, each in [0, top].

    A reply is a JSON object with `score`, a list of two numbers. Tolerated: a thinking part,
    code fences or prose around it, a bare list, numbers in quotes. Where there is no whole JSON
    object (a quotation mark in the reasoning, a missing brace) the list after `"score":` is read
    by itself, if the reply ends with it; nothing else is repaired.

    Raises:
        ValueError: thinking that never ends, no such list, more than one with different marks,
            not two items, or an item that is no number in [0, top]. The message says which.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"a reply of {len(text)} characters")
    text = without_thinking(text)
    fenced = _FENCE.match(text)
    text = (fenced[1] if fenced else text).strip()
    found = [_marks(score, top) for score in _scores(text)]
    if not found:
        raise ValueError('no "score" list')
    if len(set(found)) > 1:
        raise ValueError(f"{len(found)} score lists that differ")
    return found[0]


def _scores(text: str) -> list[Any]:
    """Every value that claims to be the score list, not yet checked."""
    if text.startswith("["):
        try:
            return [_decoder.decode(text)]
        except (ValueError, RecursionError):
            pass  # broken, or prose that starts with a bracket: look for the object
    objects = json_objects(text)
    if objects:
        return [found["score"] for found in objects if "score" in found]
    lists = list(_SCORE_LIST.finditer(text))
    if lists and not _END.fullmatch(text, lists[-1].end()):
        raise ValueError('broken JSON that goes on after its "score" list, which it may only quote')
    return [found[1].split(",") for found in lists]


def without_thinking(text: str) -> str:
    """What follows a reply's thinking. Its opening tag may be missing: some servers put it in the prompt.

    Raises:
        ValueError: the thinking never ends, so nothing in it is an answer.
    """
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer:
        raise ValueError("<think> without </think>: the reply ended while it was thinking")
    return answer


def json_objects(text: str) -> list[dict[str, Any]] | None:
    """The outermost JSON objects of a text; None when one of its braces opens none.

    Then what looks like an object further in may be something the reasoning only quotes. One that has
    a key twice, or NaN or infinity in it, is no JSON object.
    """
    found: list[dict[str, Any]] = []
    start = text.find("{")
    while start >= 0:
        try:
            value, end = _decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            return None
        found.append(value)
        start = text.find("{", end)
    return found


def _marks(score: Any, top: float) -> tuple[float, float]:
    if not isinstance(score, list):
        raise ValueError(f"score is {_short(score)}, not a list of two numbers")
    if len(score) != 2:
        raise ValueError(f"score has {len(score)} items, not two")
    first, second = (_mark(item, top) for item in score)
    return first, second


def _mark(item: Any, top: float) -> float:
    if isinstance(item, str):
        item = item.strip().strip("\"'“”").strip()
        if not _NUMBER.fullmatch(item):
            raise ValueError(f"{_short(item)} is not a number")
        item = float(item)
    if isinstance(item, bool) or not isinstance(item, int | float):
        raise ValueError(f"{_short(item)} is not a number")
    if not (0 <= item <= top and isfinite(item)):
        raise ValueError(f"{_short(item)} is outside [0, {top:g}]")
    return float(item)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")  # JSON would silently take the last
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


_decoder = json.JSONDecoder(object_pairs_hook=_no_twins, parse_constant=_no_constant)

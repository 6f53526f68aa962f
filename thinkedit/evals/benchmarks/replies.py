"""Reads marks out of judges' replies. Never guesses one: what is not plainly there is a ValueError.

The forms are those that the benchmarks' own judges answer in, so that stored replies of theirs can be
read as well. Thinking that never ends holds no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from thinkedit.rewards.judges.verdict_text import json_objects, without_thinking

_MARKUP = re.compile(r"[*_`#>]+")
_BULLET = re.compile(r"\A\s*(?:[-•]|\d{1,2}[.)])\s+")
_WHOLE = re.compile(r"\[?([0-9]{1,3})\]?(?:\s*/\s*([0-9]{1,3}))?\s*\.?")
_FINAL = re.compile(
    r"\A\s*(?:the\s+)?final\s+scores?\s*(?:\([^)]*\))?\s*(?:[:：=]|\bis\b|(?=\d)|\Z)\s*(.*)\Z", re.I
)


def named_numbers(text: str, names: Sequence[str], low: int, high: int) -> dict[str, float]:
    """One whole number for each name, from lines "name: number".

    Tolerated: markdown, bullets, "&" for "and", "4/5", a full stop. Other lines are not looked at, so
    a number in the reasoning is never a mark.

    Raises:
        ValueError: a name without a number or with two different ones, or what follows it is no whole
            number in [low, high].
    """
    wanted = {_plain(name): name for name in names}
    found: dict[str, float] = {}
    for line in _visible(text).splitlines():
        label, colon, value = _BULLET.sub("", line).replace("：", ":").partition(":")
        name = wanted.get(_plain(label))
        if colon and name is not None:
            number = _whole(value, low, high, name)
            if found.setdefault(name, number) != number:
                raise ValueError(f"{name!r} has two different numbers")
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"no number for {', '.join(map(repr, missing))}")
    return found


def final_score(text: str, name: str, low: int, high: int) -> dict[str, float]:
    """The whole number after "Final Score:" at the start of a line, or alone on the line after it.

    Raises:
        ValueError: no such line, lines that differ, two numbers, a fraction, a range, or one outside
            [low, high].
    """
    lines = [line.strip() for line in _visible(text).splitlines() if line.strip()]
    found: set[float] = set()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        claim = _FINAL.match(_BULLET.sub("", line))
        if claim:
            found.add(_whole(claim[1] or following, low, high, "Final Score"))
    if not found:
        raise ValueError('no line "Final Score: number"')
    if len(found) > 1:
        raise ValueError(f"{len(found)} final scores that differ")
    return {name: found.pop()}


def json_numbers(text: str, names: dict[str, str], low: int, high: int) -> dict[str, float]:
    """Whole numbers of a JSON object by its keys.

    Where the JSON is broken (unquoted reasoning, a missing brace, a key twice) the numbers after the
    quoted keys are read by themselves, all of them; nothing else is repaired.

    Args:
        names: key in the reply -> name of the mark.

    Raises:
        ValueError: a key that is missing or has two different values, or a value that is no whole
            number in [low, high].
    """
    text = without_thinking(text)
    objects = json_objects(text)
    marks: dict[str, float] = {}
    for key, name in names.items():
        values = [found[key] for found in objects if key in found] if objects else _loose(text, key)
        numbers = {_number(value, low, high, key) for value in values}
        if not numbers:
            raise ValueError(f"no {key!r}")
        if len(numbers) > 1:
            raise ValueError(f"{key!r} has {len(numbers)} different values")
        marks[name] = numbers.pop()
    return marks


def _loose(text: str, key: str) -> list[str]:
    return re.findall(
        rf"""["'“]{re.escape(key)}["'”]\s{{0,9}}[:：]\s{{0,9}}["']?([^"',}}\s]{{1,20}})""", text
    )


def _number(value: Any, low: int, high: int, name: str) -> float:
    if isinstance(value, str):
        return _whole(value, low, high, name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):  # not float(value): 310 digits overflow it
        raise ValueError(f"{name}: {value!r} is no whole number")
    return _in_range(value, low, high, name)


def _whole(value: str, low: int, high: int, name: str) -> float:
    match = _WHOLE.fullmatch(value.strip())
    if not match:
        raise ValueError(f"{name}: {value.strip()[:40]!r} is no whole number")
    if match[2] is not None and int(match[2]) != high:
        raise ValueError(f"{name}: {value.strip()!r} is not out of {high}")
    return _in_range(int(match[1]), low, high, name)


def _in_range(value: int, low: int, high: int, name: str) -> float:
    if not low <= value <= high:
        raise ValueError(f"{name}: {str(value)[:40]} is outside [{low}, {high}]")
    return float(value)


def _visible(text: str) -> str:
    return _MARKUP.sub("", without_thinking(text))


def _plain(label: str) -> str:
    return re.sub(r"[^a-z]+", " ", label.lower().replace("&", " and ")).strip()

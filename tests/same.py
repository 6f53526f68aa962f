"""Compares episodes field by field, pictures by their pixels."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def differences(a: Any, b: Any, where: str = "episode") -> list[str]:
    """Paths at which two records differ."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return [] if np.array_equal(a, b) and a.dtype == b.dtype else [where]
    if is_dataclass(a) and is_dataclass(b):
        # A stored record is a subclass that loads its pictures late; the fields are those of the plain one.
        names = [field.name for field in fields(a)]
        if names != [field.name for field in fields(b)]:
            return [f"{where}: {type(a).__name__} against {type(b).__name__}"]
        return [d for n in names for d in differences(getattr(a, n), getattr(b, n), f"{where}.{n}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")
        ]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{where}[{key!r}]")]
    return [] if a == b else [f"{where}: {a!r} != {b!r}"]

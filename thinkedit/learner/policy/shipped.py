"""The pretrained base that comes with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

BASE = Path(__file__).parent / "base"
"""A Hugging Face folder: a tiny Qwen3-VL that can look (see its README.md)."""


def copy_base(out: str | Path) -> Path:
    """Copies the shipped base to `out`, which may exist if it is empty; returns `out`."""
    return Path(shutil.copytree(BASE, out, dirs_exist_ok=True))

"""Figures of the EditThinker paper (arXiv 2512.05965v1, tables 1 to 4), to stand beside ours.

They were measured by others, with other judges on other days: a row of ours may be compared with
another row of ours, and with these only in the rough. The paper contradicts itself here and there
(docs/benchmarks.md); these are its tables' numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """label: editor and thinker. values: by column; columns that were not published are left out."""

    label: str
    values: dict[str, float]


_IMGEDIT = (
    "Add",
    "Adjust",
    "Extract",
    "Replace",
    "Remove",
    "Background",
    "Style",
    "Hybrid",
    "Action",
    "Overall",
)
_GEDIT = ("G_SC", "G_PQ", "G_O")
_RISE = ("Temporal", "Causal", "Spatial", "Logical", "Overall")
_KRIS = (
    "Attribute",
    "Spatial",
    "Factual",
    "Social",
    "Natural",
    "Conceptual",
    "Logical",
    "Instruction",
    "Procedural",
    "Overall",
)

_IMGEDIT_ROWS = """
OmniGen2 | 3.91 3.23 2.03 2.84 3.11 3.94 4.59 2.76 4.69 3.41
OmniGen2 + EditThinker-8B | 3.68 2.90 3.14 2.83 3.16 3.88 4.62 2.35 4.48 3.52
OmniGen2 + GPT-4.1 | 4.21 3.28 3.04 3.80 3.39 4.16 4.61 2.97 3.39 3.81
FLUX.1-Kontext-dev | 3.83 3.55 2.18 3.91 2.74 3.79 4.42 2.82 4.18 3.44
FLUX.1-Kontext-dev + EditThinker-8B | 3.82 3.80 3.52 4.09 3.88 4.09 4.52 3.21 4.44 3.98
FLUX.1-Kontext-dev + GPT-4.1 | 4.08 4.01 3.45 4.44 3.75 4.19 4.59 3.73 4.57 4.13
Qwen-Image-Edit | 4.59 4.32 3.79 4.57 3.86 4.54 4.83 3.85 4.70 4.36
Qwen-Image-Edit + EditThinker-8B | 4.23 4.43 4.24 4.20 4.21 4.44 4.76 3.91 4.68 4.40
Qwen-Image-Edit + GPT-4.1 | 4.47 4.27 4.18 4.58 4.59 4.55 4.81 3.72 4.77 4.49
"""
_GEDIT_ROWS = """
OmniGen2 | 6.47 7.04 6.03
OmniGen2 + EditThinker-8B | 6.59 7.16 6.28
OmniGen2 + GPT-4.1 | 7.34 7.24 6.78
FLUX.1-Kontext-dev | 6.62 7.61 6.18
FLUX.1-Kontext-dev + EditThinker-8B | 7.59 7.63 7.02
FLUX.1-Kontext-dev + GPT-4.1 | 7.83 7.66 7.19
Qwen-Image-Edit | 8.01 7.87 7.49
Qwen-Image-Edit + EditThinker-8B | 8.30 7.86 7.73
Qwen-Image-Edit + GPT-4.1 | 8.57 7.86 7.90
"""
_RISE_ROWS = """
OmniGen2 | 2.4 1.1 7.0 1.2 3.1
OmniGen2 + EditThinker-8B | 4.7 7.8 5.0 3.5 3.4
OmniGen2 + GPT-4.1 | 17.6 8.9 8.0 2.4 9.2
FLUX.1-Kontext-dev | 2.3 5.5 13.0 1.2 5.8
FLUX.1-Kontext-dev + EditThinker-8B | 11.8 17.8 20.0 7.1 14.4
FLUX.1-Kontext-dev + GPT-4.1 | 16.5 24.4 33.0 5.9 20.6
Qwen-Image-Edit | 4.7 10.0 17.0 2.4 8.9
Qwen-Image-Edit + EditThinker-8B | 10.8 23.3 27.0 8.2 17.8
Qwen-Image-Edit + GPT-4.1 | 25.9 32.2 40.0 9.4 27.5
"""
_KRIS_ROWS = """
OmniGen2 | 60.21 54.67 58.73 53.60 46.76 48.42 37.67 56.67 45.84 50.52
OmniGen2 + EditThinker-8B | 62.18 53.92 59.98 61.50 49.90 52.71 37.04 58.78 46.43 53.09
OmniGen2 + GPT-4.1 | 65.55 56.83 63.22 63.35 55.26 57.22 44.38 60.44 51.26 57.34
FLUX.1-Kontext-dev | 71.12 67.25 70.09 56.60 58.91 58.35 56.75 63.72 59.75 61.81
FLUX.1-Kontext-dev + EditThinker-8B | 77.82 65.50 73.73 73.44 69.04 70.09 62.29 65.33 63.60 69.53
FLUX.1-Kontext-dev + GPT-4.1 | 81.03 74.67 79.33 77.60 74.98 75.62 71.38 65.50 68.86 74.93
Qwen-Image-Edit | 72.73 73.33 72.89 63.50 60.40 61.15 57.47 67.97 61.70 64.43
Qwen-Image-Edit + EditThinker-8B | 78.48 73.83 77.24 76.20 70.69 72.02 65.23 66.89 65.94 71.91
Qwen-Image-Edit + GPT-4.1 | 83.70 76.08 81.67 81.99 80.53 80.91 71.94 76.07 73.40 79.34
"""


def published(table: str) -> Sequence[PublishedRow]:
    """The rows that were published for one of our tables; none for most."""
    return _ROWS.get(table, ())


def _rows(columns: tuple[str, ...], text: str) -> tuple[PublishedRow, ...]:
    found = []
    for line in text.strip().splitlines():
        label, _, numbers = line.partition(" | ")
        found.append(PublishedRow(label, dict(zip(columns, map(float, numbers.split()), strict=True))))
    return tuple(found)


_ROWS: dict[str, tuple[PublishedRow, ...]] = {
    "imgedit": _rows(_IMGEDIT, _IMGEDIT_ROWS),
    "gedit-en-full": _rows(_GEDIT, _GEDIT_ROWS),
    # The paper used the script of its time, so these belong beside the legacy figures.
    "risebench-legacy": _rows(_RISE, _RISE_ROWS),
    "krisbench": _rows(_KRIS, _KRIS_ROWS),
}

"""What an editor learns from and what it is measured on, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from thinkedit.types import RGB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EditSample:
    """A prompt and what it makes of a picture.

    source, target: uint8 (96, 96, 3).
    cells: for each of the target's 9 cells, row by row, the number of its object's size, colour and
        shape, or `EMPTY` three times; only the auxiliary loss uses it.
    """

    source: RGB
    prompt: str
    target: RGB
    cells: tuple[tuple[int, int, int], ...]


EMPTY = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """A held-out edit to make and to judge.

    source: uint8 (96, 96, 3).
    prompt: what the editor is told; instruction: what the judge grades against.
    operation, reference: of the instruction, for tables.
    """

    source: RGB
    instruction: str
    prompt: str
    operation: str
    reference: str

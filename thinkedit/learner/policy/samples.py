"""What a policy is pretrained on: pictures with questions and answers, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from thinkedit.types import RGB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LookSample:
    """Two pictures and what there is to say about them.

    pictures: each uint8 (96, 96, 3).
    rounds: (question, answer) pairs, asked one after another in one chat.
    cells: for each picture, the kind of thing in each of its 9 cells, row by row, as a number
        in [0, kinds); only the auxiliary loss uses it.
    """

    pictures: tuple[RGB, RGB]
    rounds: tuple[tuple[str, str], ...]
    cells: tuple[tuple[int, ...], tuple[int, ...]]

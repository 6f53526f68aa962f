"""Scenes of the world: two to four coloured shapes on a 3 x 3 grid, as plain data and as text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

Size = Literal["small", "big"]
Colour = Literal["red", "green", "blue", "yellow", "purple", "orange"]
Shape = Literal["circle", "square", "triangle", "star"]

SIZES: tuple[Size, ...] = get_args(Size)
COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
CELLS = ("top-left", "top", "top-right", "left", "centre", "right", "bottom-left", "bottom", "bottom-right")
"""Names of the nine cells, row by row; an object's `cell` is an index into this."""

JITTERS = 4
"""How many slightly shifted drawings each object has."""
NOISES = 6
"""How many fixed noise patterns a spoilt picture can show."""


@dataclass(frozen=True, slots=True)
class Item:
    """One object.

    cell: 0-8, row by row.
    jitter: 0-3, which shifted drawing of it is shown; of no meaning to the task.
    smudged: an artefact lies over it.
    """

    cell: int
    size: Size
    colour: Colour
    shape: Shape
    jitter: int = 0
    smudged: bool = False

    @property
    def look(self) -> tuple[str, str, str]:
        """What it is, wherever it stands and however clean it is."""
        return (self.size, self.colour, self.shape)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def __str__(self) -> str:
        smudged = "smudged " if self.smudged else ""
        return f"{CELLS[self.cell]} {smudged}{self.size} {self.name}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows.

    items: sorted by cell, at most one in each cell.
    noise: 0 for a clean picture, otherwise which noise pattern (1-6) lies over it.
    """

    items: tuple[Item, ...]
    noise: int = 0

    def __post_init__(self) -> None:
        cells = [item.cell for item in self.items]
        if any(a >= b for a, b in pairwise(cells)):
            raise ValueError(f"items of a scene are sorted by cell and share none, got cells {cells}")

    @staticmethod
    def of(items: Sequence[Item], noise: int = 0) -> Scene:
        """A scene of items in any order."""
        return Scene(tuple(sorted(items, key=lambda item: item.cell)), noise)

    def at(self, cell: int) -> Item | None:
        return next((item for item in self.items if item.cell == cell), None)

    @property
    def free(self) -> tuple[int, ...]:
        """Empty cells, in order."""
        taken = {item.cell for item in self.items}
        return tuple(cell for cell in range(len(CELLS)) if cell not in taken)

    @property
    def canonical(self) -> str:
        """The scene without jitter, smudges and noise: equal for pictures that mean the same."""
        return "; ".join(str(replace(item, smudged=False)) for item in self.items)


def sample_scene(rng: random.Random, *, counts: Sequence[int] = (2, 3, 3, 4)) -> Scene:
    """A clean scene whose objects all differ in colour or shape.

    Three in ten of the scenes with three objects or more have an odd one out: a single
    object whose shape differs from the shape that all the others share.

    Args:
        rng: the only source of chance; the same state gives the same scene.
        counts: how many objects, drawn evenly; 1 to 9 each (odd-one-out scenes hold at most 7).
    """
    count = rng.choice(counts)
    cells = rng.sample(range(len(CELLS)), count)
    kinds: list[tuple[Colour, Shape]]
    if 3 <= count <= len(COLOURS) + 1 and rng.random() < 0.3:
        common, odd = rng.sample(SHAPES, 2)
        kinds = [(colour, common) for colour in rng.sample(COLOURS, count - 1)]
        kinds.append((rng.choice(COLOURS), odd))
    else:
        kinds = rng.sample([(colour, shape) for colour in COLOURS for shape in SHAPES], count)
    return Scene.of(
        [
            Item(cell, rng.choice(SIZES), colour, shape, jitter=rng.randrange(JITTERS))
            for cell, (colour, shape) in zip(cells, kinds, strict=True)
        ]
    )


def spoil(scene: Scene, rng: random.Random, *, smudge: float = 0.15, noise: float = 0.25) -> Scene:
    """The scene with the artefacts that edits leave: each object smudged, the picture noisy, by chance."""
    items = [replace(item, smudged=item.smudged or rng.random() < smudge) for item in scene.items]
    return Scene.of(items, 1 + rng.randrange(NOISES) if rng.random() < noise else scene.noise)


def exchange(scene: Scene, old: Item | None, new: Item | None) -> Scene:
    """The scene with `new` instead of `old`; None stands for nothing."""
    kept = [item for item in scene.items if item != old]
    return Scene.of(kept + ([new] if new else []), scene.noise)


def describe(scene: Scene) -> str:
    """All of the scene in words, e.g. "top-left big red star; centre smudged small blue circle; noise"."""
    parts = [str(item) for item in scene.items] or ["nothing"]
    return "; ".join(parts + ["noise"] * (scene.noise > 0))

"""Draws scenes as pixels and reads pixels back into scenes by the very templates it draws with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from thinkedit.envs.world.scene import (
    COLOURS,
    JITTERS,
    NOISES,
    SHAPES,
    SIZES,
    Colour,
    Item,
    Scene,
    Shape,
    Size,
)
from thinkedit.types import RGB

CELL = 32
GRID = 3
SIDE = CELL * GRID
"""Pictures are 96 x 96."""

PAPER = (247, 246, 242)
RULE = (229, 228, 223)
SMUDGE = (120, 116, 112)
PALETTE: dict[Colour, tuple[int, int, int]] = {
    "red": (219, 50, 54),
    "green": (46, 158, 78),
    "blue": (45, 96, 215),
    "yellow": (240, 200, 40),
    "purple": (148, 60, 186),
    "orange": (245, 130, 32),
}
RADIUS: dict[Size, float] = {"small": 7.0, "big": 12.5}
SHIFTS = ((0, 0), (1, -1), (-2, 1), (2, 2))
"""Offset (x, y) in pixels of each jitter."""

NOISY_RESIDUAL = 6.0
"""A picture further than this from its own clean drawing (mean absolute difference per
channel, 0-255) counts as noisy. Our own noise measures 9 and more; soft edges stay under 4."""

_SUPERSAMPLE = 8

F32 = npt.NDArray[np.float32]
I16 = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class SceneReading:
    """What a picture shows.

    exact: the picture is pixel for pixel a drawing of `scene`.
    residual: mean absolute difference per channel (0-255) between the picture and the
        clean drawing of `scene`; 0 when exact and free of noise.
    """

    scene: Scene
    exact: bool
    residual: float

    @property
    def smudged(self) -> tuple[Item, ...]:
        return tuple(item for item in self.scene.items if item.smudged)

    @property
    def noisy(self) -> bool:
        return self.scene.noise > 0


def render(scene: Scene) -> RGB:
    """The picture of a scene: uint8, (96, 96, 3), a new array."""
    bank = _bank()
    rows = [0] * (GRID * GRID)
    for item in scene.items:
        rows[item.cell] = bank.row[item]
    picture = _from_cells(bank.drawings[rows])
    if scene.noise:
        picture = _add_noise(picture, scene.noise)
    return picture


def read_scene(image: RGB) -> SceneReading:
    """The scene a picture shows; exact for every picture that `render` makes.

    A cell that is no known drawing is read as the nearest one (least squares), so that a
    neural editor's picture can be read too. A picture far from its clean drawing is noisy.

    Args:
        image: uint8, (96, 96, 3).

    Raises:
        ValueError: another shape or dtype.
    """
    if image.shape != (SIDE, SIDE, 3) or image.dtype != np.uint8:
        raise ValueError(f"pictures of the world are uint8 (96, 96, 3), got {image.dtype} {image.shape}")
    bank = _bank()
    cells = _to_cells(image)
    rows = [bank.known.get(cell.tobytes(), -1) for cell in cells]
    if -1 not in rows:
        return SceneReading(_scene(bank, rows), exact=True, residual=0.0)
    unknown = [k for k, row in enumerate(rows) if row < 0]
    for k, row in zip(unknown, bank.nearest(cells[unknown]), strict=True):
        rows[k] = row
    clean = _from_cells(bank.drawings[rows])
    residual = float(np.abs(image.astype(np.int16) - clean).mean())
    for noise in range(1, NOISES + 1):
        if np.array_equal(_add_noise(clean, noise), image):
            return SceneReading(_scene(bank, rows, noise), exact=True, residual=residual)
    return SceneReading(_scene(bank, rows, int(residual > NOISY_RESIDUAL)), exact=False, residual=residual)


class _Bank:
    """Every drawing of a cell: row 0 is the empty cell.

    drawings: uint8, (rows, 32, 32, 3).
    row, items: item (cell ignored) to row and back.
    known: bytes of a drawing to its row.
    """

    def __init__(self) -> None:
        kinds = list(product(SHAPES, COLOURS, SIZES, range(JITTERS), (False, True)))
        looks = [
            Item(0, size, colour, shape, jitter, smudged) for shape, colour, size, jitter, smudged in kinds
        ]
        self.drawings = np.stack([_draw_cell(None), *(_draw_cell(look) for look in looks)])
        self.items: list[Item | None] = [None, *looks]
        self.row = {
            Item(cell, look.size, look.colour, look.shape, look.jitter, look.smudged): 1 + k
            for k, look in enumerate(looks)
            for cell in range(GRID * GRID)
        }
        self.known = {drawing.tobytes(): k for k, drawing in enumerate(self.drawings)}
        self._flat = _pool(self.drawings)
        self._half_norms = 0.5 * (self._flat**2).sum(axis=1)

    def nearest(self, cells: RGB) -> list[int]:
        """Rows of the drawings nearest to `cells`, (n, 32, 32, 3), in squared distance, both at half size."""
        # |c - d|^2 is least where c.d - |d|^2 / 2 is greatest; c's own norm doesn't matter
        # einsum, not @: BLAS would wake a thread per core, which costs 20 ms where trainers keep them busy
        likeness = np.einsum("ck,dk->cd", _pool(cells), self._flat) - self._half_norms
        return [int(row) for row in likeness.argmax(axis=1)]


@cache
def _bank() -> _Bank:
    return _Bank()


@cache
def _noise_patterns() -> I16:
    # RandomState's streams are frozen for good, so pictures stay the same in every numpy
    rng = np.random.RandomState(7)
    values = rng.randint(-80, 81, size=(NOISES, SIDE, SIDE, 3))
    spots = rng.randint(0, 100, size=(NOISES, SIDE, SIDE, 1)) < 35
    return (values * spots).astype(np.int16)


def _add_noise(picture: RGB, noise: int) -> RGB:
    noisy: RGB = np.clip(picture + _noise_patterns()[noise - 1], 0, 255).astype(np.uint8)
    return noisy


def _pool(cells: RGB) -> F32:
    """Cells at half size, one row each, (n, 768): a quarter of the work, and noise averages out."""
    half = CELL // 2
    sums = cells.reshape(-1, half, 2, half, 2, 3).sum(axis=(2, 4), dtype=np.float32)
    pooled: F32 = sums.reshape(len(cells), -1) / np.float32(4)
    return pooled


def _to_cells(image: RGB) -> RGB:
    return np.ascontiguousarray(image.reshape(GRID, CELL, GRID, CELL, 3).swapaxes(1, 2)).reshape(
        -1, CELL, CELL, 3
    )


def _from_cells(cells: RGB) -> RGB:
    return np.ascontiguousarray(cells.reshape(GRID, GRID, CELL, CELL, 3).swapaxes(1, 2)).reshape(
        SIDE, SIDE, 3
    )


def _scene(bank: _Bank, rows: list[int], noise: int = 0) -> Scene:
    items = []
    for cell, row in enumerate(rows):
        look = bank.items[row]
        if look is not None:
            items.append(Item(cell, look.size, look.colour, look.shape, look.jitter, look.smudged))
    return Scene(tuple(items), noise)


def _draw_cell(item: Item | None) -> RGB:
    """One cell, (32, 32, 3), with soft edges."""
    cell = np.empty((CELL, CELL, 3), np.float32)
    cell[:] = PAPER
    cell[0], cell[:, 0] = RULE, RULE
    if item is None:
        return cell.astype(np.uint8)
    cover = _coverage(item.shape, RADIUS[item.size], SHIFTS[item.jitter])[..., None]
    cell += cover * (np.array(PALETTE[item.colour], np.float32) - cell)
    if item.smudged:
        rows, columns = np.mgrid[0:CELL, 0:CELL]
        stripes = ((rows + columns) % 8 < 3)[..., None] * (0.25 + 0.75 * cover)
        cell += stripes * (np.array(SMUDGE, np.float32) - cell)
    return np.round(cell).astype(np.uint8)


def _coverage(shape: Shape, radius: float, shift: tuple[int, int]) -> F32:
    """Share of each pixel that the shape covers, (32, 32) in [0, 1]."""
    n = CELL * _SUPERSAMPLE
    grid = (np.arange(n) + 0.5) / _SUPERSAMPLE - CELL / 2
    x, y = grid[None, :] - shift[0], grid[:, None] - shift[1]
    inside: npt.NDArray[np.bool_]
    match shape:
        case "circle":
            inside = x * x + y * y < (0.95 * radius) ** 2
        case "square":
            inside = np.maximum(np.abs(x), np.abs(y)) < 0.84 * radius
        case "triangle":
            inside = (y < 0.78 * radius) & (np.abs(x) * 1.72 < y + radius)
        case "star":
            inside = _in_star(x, y + 0 * x, radius)
    cover: F32 = inside.reshape(CELL, _SUPERSAMPLE, CELL, _SUPERSAMPLE).mean(axis=(1, 3), dtype=np.float32)
    return cover


def _in_star(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.bool_]:
    """Inside of a five-pointed star with one point up: fold the plane into a tenth, then one edge."""
    outer, inner = 1.08 * radius, 0.48 * radius
    angle = np.arctan2(x, -y) % (2 * np.pi / 5)
    angle = np.minimum(angle, 2 * np.pi / 5 - angle)
    distance = np.hypot(x, y)
    u, v = distance * np.cos(angle), distance * np.sin(angle)
    tip, notch = (outer, 0.0), (inner * np.cos(np.pi / 5), inner * np.sin(np.pi / 5))
    edge = (notch[0] - tip[0]) * (v - tip[1]) - (notch[1] - tip[1]) * (u - tip[0])
    return np.asarray(edge > 0)

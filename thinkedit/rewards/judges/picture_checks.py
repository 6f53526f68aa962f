"""What pixels alone tell of an edit that would please a judge for the wrong reason.

Nothing here knows what a picture shows: each check says what it measures and what it can't see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from thinkedit.types import RGB

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]

_BLOCK = 8  # pixels
_THUMBNAIL = 32  # pixels
_SAME_TILE = 24  # of 255: editors scale with filters of their own
_PLAIN = 48  # of 255: a picture without more contrast looks like any part of itself
_GRIDS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (3, 3))  # rows, columns

LETTERS = 6
"""Glyphs in a row that count as a line of text."""
_WORK_SIDES, _MOST_ENLARGED = (1024, 512, 256), 2.0
_WINDOW, _CONTRAST = 31, 40.0  # pixels; of 255, against the mean of the window
_SHORTEST, _TALLEST = 8, 1 / 3  # height of a glyph: pixels, share of the picture


def largest_change(source: RGB, edited: RGB) -> float:
    """The mean absolute difference, of 255, of the 8 x 8 block that differs most.

    A small object counts as much as a large one; JPEG of good quality stays below 4, the decoder of
    a latent diffusion model often does not.
    """
    difference = np.abs(source.astype(np.int16) - edited).mean(axis=2)
    rows, columns = (np.arange(0, length, _BLOCK) for length in difference.shape)

    def summed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)

    return float((summed(difference) / summed(np.ones_like(difference))).max())


def tiled(source: RGB, edited: RGB) -> tuple[int, int] | None:
    """Rows and columns of the grid, one of whose cells shows the whole source; None where none does.

    Grids of 1 x 2 to 3 x 3 that fill the picture, so tilings and before-and-after collages. A copy
    of another size, with a frame or turned, is not seen.
    """
    small = _thumbnail(source)
    if np.ptp(np.percentile(small, (5, 95))) < _PLAIN:
        return None
    height, width = edited.shape[:2]
    for rows, columns in _GRIDS:
        if height < rows * _THUMBNAIL or width < columns * _THUMBNAIL:
            continue
        for strip in np.array_split(edited, rows, axis=0):
            for cell in np.array_split(strip, columns, axis=1):
                # Not all of it: cells may be a pixel off, and have something painted over.
                if np.percentile(np.abs(_thumbnail(cell) - small), 95) <= _SAME_TILE:
                    return rows, columns
    return None


def _thumbnail(image: RGB) -> npt.NDArray[np.int16]:
    """(32, 32, 3): each value the mean of its part of the picture."""
    small = Image.fromarray(np.ascontiguousarray(image)).resize(
        (_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX
    )
    return np.asarray(small).astype(np.int16)


def new_text(source: RGB, edited: RGB) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the longest line of text that the source has not; None without.

    A line is a row of at least `LETTERS` connected blots that stand out from their surroundings, have
    about one height, follow each other closely and are not all alike. It is looked for at several
    sizes. Not seen are fewer letters, joined ones (cursive), text that is turned or bent, and letters
    close in colour to what is behind. Small things in a row, such as pebbles or the stars of a flag,
    may be taken for letters. Needs scipy.
    """
    longest, found = LETTERS - 1, None
    for side in _WORK_SIDES:
        scale = min(_MOST_ENLARGED, side / max(edited.shape[:2]))
        line = _longest_line(_scaled(source, scale), _scaled(edited, scale))
        if len(line) > longest:
            left, top = line[:, :2].min(axis=0) / scale
            right, bottom = line[:, 2:4].max(axis=0) / scale
            longest, found = len(line), (int(left), int(top), int(right), int(bottom))
    return found


def _longest_line(source: RGB, edited: RGB) -> Floats:
    """Its glyphs as `_glyphs` gives them; empty where there is no line."""
    from scipy import ndimage

    before, after = _contrast(source), _contrast(edited)
    # What stands out only because its surroundings changed, such as a gap between posts, is not new.
    changed = np.abs(source.astype(np.int16) - edited).max(axis=2) > _CONTRAST
    longest: Floats = np.empty((0, 5), np.float32)
    for sign in (1, -1):  # bright on dark, and dark on bright
        old = ndimage.binary_dilation((sign * before).max(axis=2) > _CONTRAST, iterations=3)
        glyphs = _glyphs((sign * after).max(axis=2) > _CONTRAST, changed & ~old)
        longest = max([longest, *filter(_like_text, _rows(glyphs))], key=len)
    return longest


def _scaled(image: RGB, scale: float) -> RGB:
    if scale == 1:
        return image
    size = tuple(max(1, round(scale * length)) for length in image.shape[1::-1])
    how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX
    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize(size, how), np.uint8)


def _contrast(image: RGB) -> Floats:
    """Each value less the mean of its surroundings in the same channel."""
    from scipy import ndimage

    values = image.astype(np.float32)
    means = [ndimage.uniform_filter(values[..., c], _WINDOW, mode="nearest") for c in range(3)]
    contrast: Floats = values - np.stack(means, axis=-1)
    return contrast


def _glyphs(ink: Booleans, new: Booleans) -> Floats:
    """Blots that might be letters and are new: left, top, right, bottom, share of the box inked."""
    from scipy import ndimage

    labels, count = ndimage.label(ink, np.ones((3, 3)))
    if not count:
        return np.empty((0, 5), np.float32)
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, fresh = (np.bincount(labels[where], minlength=count + 1)[1:] for where in (ink, ink & new))
    inked = area / (width * height)
    wanted = (height >= _SHORTEST) & (height <= _TALLEST * ink.shape[0]) & (inked >= 0.2)
    wanted &= (width >= 0.1 * height) & (width <= 2.2 * height) & (2 * fresh >= area)
    glyphs: Floats = np.column_stack([boxes, inked])[wanted].astype(np.float32)
    in_order: Floats = glyphs[glyphs[:, 0].argsort()]
    return in_order


def _rows(glyphs: Floats) -> Iterator[Floats]:
    """Rows of glyphs, the longest first; no glyph is in two of them."""
    left, top, right, bottom = glyphs[:, :4].T
    height = bottom - top
    length, before = np.ones(len(glyphs), int), np.full(len(glyphs), -1)
    for k in range(1, len(glyphs)):
        larger, smaller = np.maximum(height[k], height[:k]), np.minimum(height[k], height[:k])
        gap = left[k] - right[:k]
        level = np.minimum(bottom[k], bottom[:k]) - np.maximum(top[k], top[:k]) >= 0.6 * smaller
        follows = level & (larger <= 2.2 * smaller) & (gap <= 1.5 * larger) & (gap >= -0.3 * larger)
        if follows.any():
            before[k] = np.where(follows, length[:k], 0).argmax()
            length[k] = length[before[k]] + 1
    taken: set[int] = set()
    for last in length.argsort()[::-1].tolist():
        row = []
        while last >= 0 and last not in taken:
            row.append(last)
            taken.add(last)
            last = int(before[last])
        if row:
            yield glyphs[row]


def _like_text(row: Floats) -> bool:
    """Of about one height, and unlike a row of windows or posts, where each is as the one before."""
    width, height = row[:, 2] - row[:, 0], row[:, 3] - row[:, 1]
    alike = width.std() < 0.05 * width.mean() or row[:, 4].std() < 0.025
    return bool(height.std() <= 0.35 * height.mean() and not alike)

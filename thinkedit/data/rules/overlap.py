"""No training on benchmark pictures: a perceptual hash finds sources that look like excluded images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from thinkedit.types import RGB

Hashes = npt.NDArray[np.uint64]

_SIDE = 8


def difference_hash(image: RGB) -> int:
    """64 bits: whether each of 8 x 8 cells is darker than its right neighbour. Scale hardly matters."""
    grey = Image.fromarray(image).convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    cells = np.asarray(grey, np.int16)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def hashes(images: Iterable[RGB]) -> Hashes:
    return np.array([difference_hash(image) for image in images], np.uint64)


def resembles(image: RGB, excluded: Hashes, *, distance: int) -> bool:
    """Whether the image's hash differs from an excluded one in at most `distance` of 64 bits."""
    if not len(excluded):
        return False
    differing = np.bitwise_count(excluded ^ np.uint64(difference_hash(image)))
    return bool(differing.min() <= distance)

from __future__ import annotations

import numpy as np
from PIL import Image

from thinkedit.data.rules.overlap import difference_hash, hashes, resembles
from thinkedit.types import RGB


def scene(seed: int) -> RGB:
    """Smooth blobs, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC))


def test_each_bit_says_whether_it_gets_brighter_to_the_right() -> None:
    ramp = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], 80, 0).repeat(3, 2)
    assert difference_hash(ramp) == 2**64 - 1
    assert difference_hash(ramp[:, ::-1]) == 0


def test_a_copy_in_another_size_and_quality_is_found() -> None:
    image = scene(1)
    smaller = np.asarray(Image.fromarray(image).resize((77, 51), Image.Resampling.LANCZOS))
    assert resembles(smaller, hashes([scene(2), image]), distance=4)


def test_other_pictures_are_not() -> None:
    excluded = hashes(scene(seed) for seed in range(100))
    assert not any(resembles(scene(seed), excluded, distance=4) for seed in range(100, 300))


def test_nothing_resembles_nothing() -> None:
    assert not resembles(scene(1), hashes([]), distance=64)

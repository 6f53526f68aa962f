"""Pictures from outside become 8-bit RGB here, in one place and one way."""

from __future__ import annotations

import os
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from thinkedit.errors import DataError
from thinkedit.types import RGB

_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # PIL's modes for grey pictures of 16 bits


def to_rgb(image: Image.Image) -> RGB:
    """Any picture as uint8 (H, W, 3).

    It is turned upright (EXIF), palettes are looked up, 16 bits are scaled to 8, and what is
    transparent shows white behind it. Of an animation the frame that PIL stands at is taken.

    Raises:
        ValueError: PIL knows no way to RGB from this mode, or no range of its values.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        image = _eight_bits(image)
    elif image.mode == "F":
        raise ValueError("a picture of floating-point values has no range to scale by")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"))


def read_rgb(file: str | os.PathLike[str] | IO[bytes]) -> RGB:
    """A picture file as `to_rgb` gives it.

    Raises:
        DataError: no such file, no picture, a damaged one, one of so many pixels that PIL takes
            it for an attack, or one that can't become RGB.
    """
    name = getattr(file, "name", "a picture") if hasattr(file, "read") else str(file)
    try:
        with Image.open(file) as image:
            return to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable picture ({error})") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError("grey values outside 16 bits have no range to scale by")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 / 257 = 255, rounded

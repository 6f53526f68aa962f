"""Pictures on their way to an editor and back: limits checked before decoding, sizes after."""

from __future__ import annotations

import io
from enum import StrEnum

import numpy as np
from PIL import Image

from thinkedit.envs.images import to_rgb
from thinkedit.types import RGB

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 4096 * 4096
MAX_SIDE = 16384  # pixels; longer ones are no picture but an attack
ROUNDED_TO = 16  # pixels; diffusion pipelines round sizes to this
_ASPECT_SLACK = 32  # pixels; how far rounding may move a side at the picture's own aspect ratio


class Resize(StrEnum):
    """Which sizes other than the source's are accepted, and then scaled back to it."""

    NEVER = "never"
    ROUNDED = "rounded"  # the source's, each side rounded to a multiple of `ROUNDED_TO`
    ASPECT = "aspect"  # any of the source's aspect ratio, but for rounding to 32 pixels


def encode_png(image: RGB) -> bytes:
    """Lossless; compressed lightly, for time counts more than bytes on the way to an editor."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def most_pixels(source: RGB) -> int:
    """That an edit of it may claim to have."""
    return max(int(source.shape[0] * source.shape[1]), MAX_PIXELS)


def decode(data: bytes, max_pixels: int) -> RGB:
    """
    Args:
        max_pixels: what the header may claim; checked before a pixel is decoded.

    Raises:
        ValueError: too many pixels, a side beyond `MAX_SIDE`, another format, or damaged data.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels or max(width, height) > MAX_SIDE:
                raise ValueError(
                    f"{width}x{height} is more than {max_pixels} pixels, or than {MAX_SIDE} along a side"
                )
            return to_rgb(image)
    except ValueError:
        raise
    except Exception as error:  # PIL's decoders raise almost anything on hostile data
        raise ValueError(f"no readable {', '.join(FORMATS)}: {error}") from error


def fit(image: RGB, source: RGB, policy: Resize) -> RGB:
    """The image at the source's size.

    Raises:
        ValueError: a size that `policy` does not accept.
    """
    (height, width), (wanted_height, wanted_width) = image.shape[:2], source.shape[:2]
    if (height, width) == (wanted_height, wanted_width):
        return image
    if not _acceptable((width, height), (wanted_width, wanted_height), policy):
        raise ValueError(
            f"{width}x{height} for a source of {wanted_width}x{wanted_height} (resize: {policy})"
        )
    return scale(image, (wanted_width, wanted_height))


def scale(image: RGB, size: tuple[int, int]) -> RGB:
    """The image at `size` (width, height), Lanczos."""
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _acceptable(size: tuple[int, int], wanted: tuple[int, int], policy: Resize) -> bool:
    if policy is Resize.ROUNDED:
        return all(
            side % ROUNDED_TO == 0 and abs(side - want) < ROUNDED_TO
            for side, want in zip(size, wanted, strict=True)
        )
    if policy is Resize.ASPECT:
        (width, height), (wanted_width, wanted_height) = size, wanted
        # the width that goes with this height, and the height that goes with this width
        return (
            abs(width - height * wanted_width / wanted_height) <= _ASPECT_SLACK
            or abs(height - width * wanted_height / wanted_width) <= _ASPECT_SLACK
        )
    return False

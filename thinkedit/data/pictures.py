"""Facts about image files that trajectories refer to; each file is read once, as far as memory allows."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from thinkedit.data.formats.records import ImageRef
from thinkedit.errors import DataError

_REMEMBERED = 2**15  # files


@lru_cache(_REMEMBERED)
def sha256_of(path: str) -> str:
    """Hash of a file's bytes.

    Raises:
        DataError: the file can't be read.
    """
    return hashlib.sha256(_read(path)).hexdigest()


@lru_cache(_REMEMBERED)
def describe(path: str) -> ImageRef:
    """An image file by reference, with its hash and size; its pixels are not decoded.

    Raises:
        DataError: no such file, or no image.
    """
    data = _read(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error
    return ImageRef(path=path, sha256=hashlib.sha256(data).hexdigest(), width=width, height=height)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error}") from error

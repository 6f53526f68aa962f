"""Images by content: one PNG file per distinct picture, shared by every writer of a run."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from thinkedit.errors import DataError
from thinkedit.types import RGB

_CACHED_BYTES = 64 * 2**20  # decoded images a reader keeps; neighbours share source and first edit


def image_key(image: RGB) -> str:
    """The name of an image: sha256 over its size and pixels, so that no encoder's version shows in it."""
    height, width = image.shape[:2]
    digest = hashlib.sha256(f"rgb {height} {width}\n".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


class ImageFolder:
    """Images by content, as PNG files. Safe for any number of writers and readers.

    Args:
        sync: an image is on the disk when `add` returns, also if the machine goes down.
    """

    def __init__(self, root: Path, sync: bool = False) -> None:
        self.root, self._sync = root, sync
        self._known: set[str] = set()
        self._cache: OrderedDict[str, RGB] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ImageFolder], tuple[Path, bool]]:
        return ImageFolder, (self.root, self._sync)  # episodes read back travel between processes

    def path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.png"

    def add(self, image: RGB) -> str:
        """Write `image` unless it is there already; its key.

        Raises:
            DataError: not a uint8 array of shape (H, W, 3).
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(f"an image must be uint8 of shape (H, W, 3), got {image.dtype} {image.shape}")
        key = image_key(image)
        if key in self._known:
            return key
        path = self.path(key)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = BytesIO()
            Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
            # Two writers of one hash write equal bytes: whoever renames last changes nothing.
            write_atomically(path, buffer.getvalue(), sync=self._sync)
        self._known.add(key)
        return key

    def adopt(self, ref: ImageRef) -> str:
        """Take over an image of another folder without decoding it; its key."""
        path, origin = self.path(ref.key), ref.folder.path(ref.key)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_atomically(path, origin.read_bytes())
            except FileNotFoundError as error:
                raise DataError(f"the image {origin} is gone: {error}") from error
        return ref.key

    def get(self, key: str) -> RGB:
        """The image as a read-only array.

        Raises:
            DataError: no such image, or a file that is no image.
        """
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        try:
            with Image.open(self.path(key)) as opened:
                image = np.array(opened.convert("RGB"))
        except OSError as error:
            raise DataError(f"cannot read the image {self.path(key)}: {error}") from error
        image.setflags(write=False)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = image
                self._cached += image.nbytes
            while self._cached > _CACHED_BYTES and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
        return image


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image of a folder that nobody has looked at yet."""

    folder: ImageFolder
    key: str


def write_atomically(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Readers see the whole file or none: write under a name nobody globs, then rename.

    Args:
        sync: bytes and name are on the disk when it returns.
    """
    part = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    with open(part, "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(part, path)
    if sync:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

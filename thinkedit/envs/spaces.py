"""Gymnasium spaces for any Unicode text and for images whose size differs from task to task.

Gymnasium's own `Text` needs a fixed alphabet and `Box` a fixed shape. Importing this module
also tells Gymnasium's vector utilities how to batch and share the two.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from ctypes import c_uint8
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium import Space
from gymnasium.vector.utils import (
    create_empty_array,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from thinkedit.envs.protocol import is_unicode
from thinkedit.types import RGB

T = TypeVar("T")

_SAMPLE_LENGTH = 64  # longest sampled text
_SAMPLE_SIDE = 32  # longest side of a sampled image
_HEADER = 8  # bytes before the payload in shared memory: a length, or height and width
_ALPHABETS = ((0x20, 0x7F), (0xA0, 0x250), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0x1F300, 0x1F650))


class UnicodeText(Space[str]):
    """Any text that UTF-8 can carry (no lone surrogates), of at most `max_chars` characters.

    Args:
        max_chars: upper bound of the length, which also sizes the shared memory of workers.
        seed: of the sampler.
    """

    def __init__(self, max_chars: int = 20_000, seed: int | np.random.Generator | None = None) -> None:
        if max_chars < 1:
            raise ValueError(f"max_chars must be at least 1, got {max_chars}")
        self.max_chars = max_chars
        super().__init__(None, None, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: text has no fixed-size vector."""
        return False

    def sample(self, mask: None = None, probability: None = None) -> str:
        """A short text over several scripts, emoji among them; masks are not supported."""
        _refuse_masks(mask, probability)
        length = int(self.np_random.integers(0, min(self.max_chars, _SAMPLE_LENGTH) + 1))
        low, high = _ALPHABETS[int(self.np_random.integers(len(_ALPHABETS)))]
        return "".join(chr(code) for code in self.np_random.integers(low, high, size=length))

    def contains(self, x: Any) -> bool:
        """Whether `x` is a str within the bound that UTF-8 can carry."""
        return isinstance(x, str) and len(x) <= self.max_chars and is_unicode(x)

    def to_jsonable(self, sample_n: Sequence[str]) -> list[Any]:
        """Texts are JSON already."""
        return list(sample_n)

    def from_jsonable(self, sample_n: list[Any]) -> list[str]:
        """The inverse of `to_jsonable`."""
        return [str(text) for text in sample_n]

    def __repr__(self) -> str:
        return f"UnicodeText(max_chars={self.max_chars})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and other.max_chars == self.max_chars


class ImageSpace(Space[RGB]):
    """RGB images, uint8 (H, W, 3), of any size from one pixel to `max_pixels`.

    Args:
        max_pixels: upper bound of H * W, which also sizes the shared memory of workers.
        seed: of the sampler.
    """

    def __init__(self, max_pixels: int = 2048 * 2048, seed: int | np.random.Generator | None = None) -> None:
        if max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, got {max_pixels}")
        self.max_pixels = max_pixels
        # No shape: Gymnasium takes it for fixed.
        super().__init__(None, np.uint8, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: the size differs from image to image."""
        return False

    def sample(self, mask: None = None, probability: None = None) -> RGB:
        """A small image of noise, of random size; masks are not supported."""
        _refuse_masks(mask, probability)
        side = min(_SAMPLE_SIDE, int(self.max_pixels**0.5))
        height, width = (int(n) for n in self.np_random.integers(1, side + 1, size=2))
        return self.np_random.integers(0, 256, size=(height, width, 3), dtype=np.uint8)

    def contains(self, x: Any) -> bool:
        """Whether `x` is a uint8 array (H, W, 3) within the bound."""
        return (
            isinstance(x, np.ndarray)
            and x.dtype == np.uint8
            and x.ndim == 3
            and x.shape[2] == 3
            and 1 <= x.shape[0] * x.shape[1] <= self.max_pixels
        )

    def to_jsonable(self, sample_n: Sequence[RGB]) -> list[Any]:
        """Nested lists of numbers."""
        return [image.tolist() for image in sample_n]

    def from_jsonable(self, sample_n: list[Any]) -> list[RGB]:
        """The inverse of `to_jsonable`."""
        return [np.asarray(image, dtype=np.uint8) for image in sample_n]

    def __repr__(self) -> str:
        return f"ImageSpace(max_pixels={self.max_pixels})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageSpace) and other.max_pixels == self.max_pixels


def _refuse_masks(*masks: object) -> None:
    if any(mask is not None for mask in masks):
        raise ValueError("this space can't be sampled with a mask or with probabilities")


# --- vector environments: batches are tuples; shared memory has one slot per environment --------


@create_empty_array.register(UnicodeText)
def _empty_texts(space: UnicodeText, n: int = 1, fn: Any = np.zeros) -> tuple[str, ...]:
    return ("",) * n


@create_empty_array.register(ImageSpace)
def _empty_images(space: ImageSpace, n: int = 1, fn: Any = np.zeros) -> tuple[RGB, ...]:
    return tuple(np.zeros((1, 1, 3), dtype=np.uint8) for _ in range(n))


def _slot_bytes(space: Space[Any]) -> int:
    # UTF-8 takes at most four bytes for a character.
    return _HEADER + (4 * space.max_chars if isinstance(space, UnicodeText) else 3 * space.max_pixels)  # type: ignore[attr-defined]


@create_shared_memory.register(UnicodeText)
@create_shared_memory.register(ImageSpace)
def _create_slots(space: Space[Any], n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.RawArray(c_uint8, n * _slot_bytes(space))


def _slot(space: Space[Any], shared_memory: Any, index: int) -> npt.NDArray[np.uint8]:
    size = _slot_bytes(space)
    return np.frombuffer(shared_memory, dtype=np.uint8, count=size, offset=index * size)


def _write(slot: npt.NDArray[np.uint8], header: Iterable[int], payload: npt.NDArray[np.uint8]) -> None:
    slot[:_HEADER] = np.array(list(header), dtype=np.uint32).view(np.uint8)
    slot[_HEADER : _HEADER + payload.size] = payload


@write_to_shared_memory.register(UnicodeText)
def _write_text(space: UnicodeText, index: int, value: str, shared_memory: Any) -> None:
    if not space.contains(value):
        raise ValueError(f"a text of {len(value)} characters is not in {space}")
    data = np.frombuffer(value.encode("utf-8"), dtype=np.uint8)
    _write(_slot(space, shared_memory, index), (data.size, 0), data)


@write_to_shared_memory.register(ImageSpace)
def _write_image(space: ImageSpace, index: int, value: RGB, shared_memory: Any) -> None:
    if not space.contains(value):
        raise ValueError(f"an image of shape {np.shape(value)} is not in {space}")
    _write(_slot(space, shared_memory, index), value.shape[:2], np.ascontiguousarray(value).reshape(-1))


class SharedBatch(Sequence[T]):
    """The environments' values in shared memory, read afresh at each access.

    `AsyncVectorEnv` reads its batch once, when it is made, and afterwards hands out deep copies of
    that: right for arrays, which are views of the memory, and wrong for anything else. So this is a
    view too, and a deep copy of it is an ordinary tuple of what the memory holds now.
    """

    def __init__(self, read: Callable[[int], T], n: int) -> None:
        self._read, self._n = read, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: Any) -> Any:
        return tuple(self._read(k) for k in range(self._n))[index]

    def __repr__(self) -> str:
        return f"SharedBatch{tuple(self)!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[T, ...]:
        return tuple(self[:])


@read_from_shared_memory.register(UnicodeText)
def _read_texts(space: UnicodeText, shared_memory: Any, n: int = 1) -> SharedBatch[str]:
    def read(index: int) -> str:
        slot = _slot(space, shared_memory, index)
        size = int(slot[:_HEADER].view(np.uint32)[0])
        return slot[_HEADER : _HEADER + size].tobytes().decode("utf-8")

    return SharedBatch(read, n)


@read_from_shared_memory.register(ImageSpace)
def _read_images(space: ImageSpace, shared_memory: Any, n: int = 1) -> SharedBatch[RGB]:
    def read(index: int) -> RGB:
        slot = _slot(space, shared_memory, index)
        height, width = (int(side) for side in slot[:_HEADER].view(np.uint32))
        # Copied: the worker writes the next step into the same slot.
        return slot[_HEADER : _HEADER + height * width * 3].reshape(height, width, 3).copy()

    return SharedBatch(read, n)

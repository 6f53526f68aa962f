"""Records from JSON Lines and from JSON lists, one at a time; what is wrong is told with line and field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TextIO, TypeVar

import msgspec
from msgspec import Meta

from thinkedit.errors import DataError
from thinkedit.types import SCORE_MAX, SCORE_MIN

T = TypeVar("T")

Text = Annotated[str, Meta(pattern=r"\S")]
"""A string that is more than white space."""

Mark = Annotated[float, Meta(ge=SCORE_MIN, le=SCORE_MAX)]
"""A number in [0, 10]."""

_CHUNK = 2**20  # characters read at once
_LONGEST = 2**26  # characters; a record beyond it is taken for a fault of the file
_MISSING = re.compile(r"missing required field `([^`]+)`")


class Line(NamedTuple):
    """A line that is not blank. number: from 1; offset: of its first byte in the file."""

    file: Path
    number: int
    offset: int
    data: bytes

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file that are not blank.

    Raises:
        DataError: the file can't be read.
    """
    try:
        with open(path, "rb") as file:
            offset = 0
            for number, data in enumerate(file, start=1):
                if not data.isspace():
                    yield Line(path, number, offset, data)
                offset += len(data)
    except OSError as error:
        raise DataError(f"{path}: {error}") from error


def decode(decoder: msgspec.json.Decoder[T], data: bytes, where: str) -> T:
    """The record that `data` holds.

    Raises:
        DataError: no JSON, or not what the decoder's type says; names `where` and the field.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise fault(where, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{where}: {error}") from error


def fault(where: str, error: msgspec.ValidationError) -> DataError:
    """msgspec's complaint as ours: place, field, what is wrong."""
    what, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").removeprefix(".")
    if missing := _MISSING.search(what):
        field, what = f"{field}.{missing[1]}".removeprefix("."), "this required field is missing"
    return DataError(f"{where}: {field}: {what}" if field else f"{where}: {what}")


def convert(value: Any, kind: type[T], where: str) -> T:
    """A decoded value as a checked record.

    Raises:
        DataError: not what the type says; names `where` and the field.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise fault(where, error) from error


def read_values(path: Path) -> Iterator[tuple[int, Any]]:
    """Each object of a JSON list, or of JSON Lines, with the line it starts in.

    Only one record is held at a time, so that a list may be larger than memory.

    Raises:
        DataError: the file can't be read or is neither of the two.
    """
    try:
        with open(path, encoding="utf-8") as file:
            yield from _Values(path, file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error


class _Values:
    """A window on a JSON file that moves from one value to the next."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._line = "", 0, 1
        self._decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        if self._next() == "[":
            self._at += 1
            yield from self._list()
        while self._next():
            yield self._object()

    def _list(self) -> Iterator[tuple[int, Any]]:
        if self._next() != "]":
            yield self._object()
            while self._next() == ",":
                self._at += 1
                yield self._object()
        if self._next() != "]":
            raise self._wrong("expected ',' or ']' after a record")
        self._at += 1
        if self._next():
            raise self._wrong("text after the end of the list")

    def _object(self) -> tuple[int, Any]:
        if self._next() != "{":
            raise self._wrong("expected an object")
        return self._line, self._value()

    def _next(self) -> str:
        """The next character that is no white space, "" at the end; moves to it."""
        while True:
            rest = self._text[self._at : self._at + 1]
            if rest == "\n":
                self._line += 1
            if rest and not rest.isspace():
                return rest
            self._at += 1
            if self._at >= len(self._text) and not self._refill(_CHUNK):
                return ""

    def _refill(self, size: int) -> bool:
        more = self._file.read(size)
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _value(self) -> Any:
        size = _CHUNK
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                # Perhaps the record goes on beyond the window. Doubled, or a long one is read n times.
                if len(self._text) - self._at < _LONGEST and self._refill(size):
                    size *= 2
                    continue
                raise self._wrong(f"not JSON: {error}") from error
            self._line += self._text.count("\n", self._at, end)
            self._at = end
            return value

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self._path}:{self._line}: {what}")

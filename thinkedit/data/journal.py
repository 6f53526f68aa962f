"""A JSON Lines file that grows while its writer may be killed: whole lines or none, and one writer."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from thinkedit.errors import ThinkEditError

_CHUNK = 2**16
_LONGEST = 32  # bytes of a number


class JournalInUse(ThinkEditError):
    """Another process writes to the file, or works otherwise in its folder."""


class Journal:
    """Appends lines that are on disk when `append` returns. Use as a context manager.

    What a killed writer left of a line is cut off on entry, so that every line in the file is whole.

    Raises:
        JournalInUse: on entry, when another process has the file open for writing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # Goes with the process, however it ends.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise JournalInUse(
                f"{self._path}: another process writes to it; wait for that one, or choose another folder"
            ) from None
        os.ftruncate(self._file, self._whole_lines())
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, line: bytes) -> None:
        """Write a line, given without its end."""
        rest = memoryview(line + b"\n")
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)

    def _whole_lines(self) -> int:
        """Bytes up to the end of the last line that has one."""
        end = os.fstat(self._file).st_size
        while end > 0:
            start = max(0, end - _CHUNK)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0


class SharedCount:
    """A number that all processes which hold the file at a time agree on. Use as a context manager.

    Whoever is the first sets it; the lock goes with the process, however it ends.

    Args:
        path: made if it isn't there; its folder must be.

    Raises:
        JournalInUse: on entry, when another process holds it with another number.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(self._count).encode(), 0)
        except BlockingIOError:
            pass  # others hold it, with their number
        # Not at one stroke: another one may set its number in between, so it is read again.
        fcntl.flock(self._file, fcntl.LOCK_SH)
        held = int(os.pread(self._file, _LONGEST, 0))
        if held != self._count:
            os.close(self._file)
            raise JournalInUse(
                f"{self._path.parent}: another process works on it in {held} parts, this one would in "
                f"{self._count}; wait for that one, or share the work out as it does"
            )
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

"""A directory of small files that many processes share, bounded in size, with one maker for each file."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

_SHARE_KEPT = 0.9  # of the bound after an eviction, so that the next one is some way off
_LEFTOVER_S = 3600.0  # locks and partial files older than this belong to nobody alive
_LOCK, _PARTIAL = ".lock", ".partial"


class Disk:
    """Files by key, at `root/ab/abcd....suffix`; the modification time is that of the last use.

    Readers see a whole file or none. Locks are the kernel's (`flock`): a killed process holds none.
    On a network file system they hold between nodes if it knows `flock`, as NFS 4 does; where they
    don't, the worst is that a file is made twice.

    Args:
        suffix: of the files' names, e.g. ".png".
        max_bytes: beyond it the files used least lately are removed, whoever wrote them.
    """

    def __init__(self, root: str | os.PathLike[str], suffix: str, max_bytes: int) -> None:
        self._root, self._suffix, self._max_bytes = Path(root), suffix, max_bytes

    def path(self, key: str) -> Path:
        return self._root / key[:2] / (key + self._suffix)

    def read(self, key: str) -> bytes | None:
        """A file's content, None if there is none; it now counts as just used."""
        path = self.path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        return data

    def write(self, key: str, data: bytes) -> None:
        """Add or replace a file, and make room for it."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid.uuid4().hex}{_PARTIAL}")
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self._make_room(len(data))

    def remove(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def try_lock(self, key: str) -> int | None:
        """The right to make a file, for `unlock`; None while someone else has it, in whatever process."""
        path = self._lock_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException as error:
                os.close(handle)
                if isinstance(error, BlockingIOError):
                    return None
                raise
            if os.fstat(handle).st_nlink:
                return handle
            os.close(handle)  # its last holder removed it in between: who opens it now gets a new one

    def unlock(self, key: str, handle: int) -> None:
        self._lock_path(key).unlink(missing_ok=True)  # before the lock is free, or it would be another's
        os.close(handle)

    def _lock_path(self, key: str) -> Path:
        return self.path(key).with_suffix(_LOCK)

    def _make_room(self, written: int) -> None:
        """Count what was written; evict when that is more than allowed. One process at a time."""
        with open(os.open(self._root / "size", os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            try:
                total = int(file.read()) + written
            except ValueError:  # it is new, or who wrote it was killed
                total = self._max_bytes + 1
            if total > self._max_bytes:
                total = self._evict()
            file.seek(0)
            # Always of one length: some file systems flush what is truncated, and take their time.
            file.write(f"{total:020}")

    def _evict(self) -> int:
        """Remove what was used least lately, and what dead processes left.

        Returns:
            The bytes that are kept.
        """
        files: list[tuple[float, int, str]] = []
        for folder in self._root.glob("??"):
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):  # somebody else removed it just now
                    used, size = entry.stat().st_mtime, entry.stat().st_size
                    if not entry.name.endswith((_LOCK, _PARTIAL)):
                        files.append((used, size, entry.path))
                    elif used < time.time() - _LEFTOVER_S:
                        os.unlink(entry.path)
        total = sum(size for _, size, _ in files)
        if total > self._max_bytes:
            for _, size, path in sorted(files):
                if total <= self._max_bytes * _SHARE_KEPT:
                    break
                Path(path).unlink(missing_ok=True)
                total -= size
        return total

"""A cache around any editor or judge: the same question is asked once, by whomever and however often."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image, PngImagePlugin

from thinkedit.envs.editors.base import Editor, EditRequest
from thinkedit.errors import EditorError
from thinkedit.rewards.judges.base import Judge
from thinkedit.types import RGB, Scores, Verdict

V = TypeVar("V")
log = logging.getLogger(__name__)

MEMORY_BYTES = 128 * 2**20
_CHECKSUM = "thinkedit:sha256"  # a text entry of our PNG files


@dataclass(slots=True)
class CacheStats:
    """hits: answered from memory or disk. joined: answered by a call already under way.
    misses: asked for real. corrupt: unreadable files removed (each also counts as a miss)."""

    hits: int = 0
    joined: int = 0
    misses: int = 0
    corrupt: int = 0


class CachedEditor(Editor):
    """An editor that makes each distinct edit once.

    The key is the SHA-256 of source pixels and shape, prompt, seed, and the editor's name,
    revision and settings. An editor without exact repeatability is frozen by it: the first
    answer for a key is the answer. Errors are never kept. Callers that ask for the same edit
    at the same time, from any thread or task, share one call; if the one who makes it is
    cancelled, another takes over.

    Args:
        directory: keep edits there as PNG files too; None keeps the last ones in memory only.
        memory_bytes: least recently used images beyond this are dropped from memory.
    """

    def __init__(
        self,
        editor: Editor,
        directory: str | os.PathLike[str] | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.name, self.revision = editor.name, editor.revision
        self.deterministic = editor.deterministic
        self.inline = editor.inline and directory is None
        self._editor = editor
        self._identity = _identity(editor.name, editor.revision, editor.settings())
        self._cache = _Cache(_Pictures(), directory, memory_bytes)

    @property
    def stats(self) -> CacheStats:
        return self._cache.stats

    def settings(self) -> Mapping[str, Any]:
        return self._editor.settings()

    def close(self) -> None:
        self._editor.close()

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        def make() -> RGB:
            return _checked(self._editor.edit(source, prompt, seed=seed), source)

        return self._cache.get(self._key(source, prompt, seed), make).copy()

    async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        if self.inline:
            return self.edit(source, prompt, seed=seed)

        async def make() -> RGB:
            return _checked(await self._editor.edit_async(source, prompt, seed=seed), source)

        return (await self._cache.get_async(self._key(source, prompt, seed), make)).copy()

    async def edit_many(self, requests: Sequence[EditRequest]) -> list[RGB | Exception]:
        """As `Editor.edit_many`; what is missing goes to the editor's own `edit_many` as one batch."""

        async def make(missing: Sequence[int]) -> list[RGB | Exception]:
            made = await self._editor.edit_many([requests[k] for k in missing])
            return [
                result if isinstance(result, Exception) else _checked_or_error(result, requests[k].source)
                for k, result in zip(missing, made, strict=True)
            ]

        keys = [self._key(request.source, request.prompt, request.seed) for request in requests]
        results = await self._cache.get_many(keys, make)
        return [result if isinstance(result, Exception) else result.copy() for result in results]

    def _key(self, source: RGB, prompt: str, seed: int) -> str:
        return _digest(self._identity, _pixels(source), _text(prompt), str(seed).encode())


class CachedJudge(Judge):
    """A judge that grades each distinct edit once; see `CachedEditor`. Files are JSON."""

    def __init__(
        self,
        judge: Judge,
        directory: str | os.PathLike[str] | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.name, self.revision = judge.name, judge.revision
        self.inline = judge.inline and directory is None
        self._judge = judge
        self._identity = _identity(judge.name, judge.revision, judge.settings())
        self._cache = _Cache(_Verdicts(), directory, memory_bytes)

    @property
    def stats(self) -> CacheStats:
        return self._cache.stats

    def settings(self) -> Mapping[str, Any]:
        return self._judge.settings()

    def close(self) -> None:
        self._judge.close()

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        key = self._key(source, edited, instruction)
        return self._cache.get(key, lambda: self._judge.judge(source, edited, instruction))

    async def judge_async(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        if self.inline:
            return self.judge(source, edited, instruction)
        key = self._key(source, edited, instruction)
        return await self._cache.get_async(key, lambda: self._judge.judge_async(source, edited, instruction))

    def _key(self, source: RGB, edited: RGB, instruction: str) -> str:
        return _digest(self._identity, _pixels(source), _pixels(edited), _text(instruction))


class _Codec(ABC, Generic[V]):
    """How a value lies in a file."""

    suffix: str

    @abstractmethod
    def encode(self, value: V) -> bytes: ...

    @abstractmethod
    def decode(self, data: bytes) -> V:
        """
        Raises:
            ValueError: the data is damaged.
        """

    @abstractmethod
    def weight(self, value: V) -> int:
        """Bytes in memory, about."""


class _Pictures(_Codec[RGB]):
    suffix = ".png"

    def encode(self, value: RGB) -> bytes:
        buffer, note = io.BytesIO(), PngImagePlugin.PngInfo()
        note.add_text(_CHECKSUM, _digest(_pixels(value)))
        Image.fromarray(value).save(buffer, "PNG", pnginfo=note)
        return buffer.getvalue()

    def decode(self, data: bytes) -> RGB:
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                pixels = np.array(image)
                checksum = image.info.get(_CHECKSUM)
        except (OSError, SyntaxError) as error:  # PIL's errors on damaged files
            raise ValueError(str(error)) from error
        if checksum != _digest(_pixels(pixels)):  # PIL lets some damage pass
            raise ValueError("its pixels don't match its checksum")
        return pixels

    def weight(self, value: RGB) -> int:
        return value.nbytes


class _Verdicts(_Codec[Verdict]):
    suffix = ".json"

    def encode(self, value: Verdict) -> bytes:
        scores = {"semantic": value.scores.semantic, "quality": value.scores.quality}
        record = {"judge_id": value.judge_id, "prompt_hash": value.prompt_hash, "notes": dict(value.notes)}
        return json.dumps(scores | record).encode()

    def decode(self, data: bytes) -> Verdict:
        try:
            record = json.loads(data)
            return Verdict(
                scores=Scores(float(record["semantic"]), float(record["quality"])),
                judge_id=record["judge_id"],
                prompt_hash=record["prompt_hash"],
                notes=record["notes"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a verdict: {error!r}") from error

    def weight(self, value: Verdict) -> int:
        return 1024


class _Abandoned(Exception):
    """The one who was making the value was cancelled; whoever waits may take over."""


class _Cache(Generic[V]):
    """Memory, then disk, then one call for all who ask at the same time."""

    def __init__(self, codec: _Codec[V], directory: str | os.PathLike[str] | None, memory_bytes: int) -> None:
        self.stats = CacheStats()
        self._codec = codec
        self._directory = None if directory is None else Path(directory)
        self._memory: OrderedDict[str, V] = OrderedDict()
        self._room = memory_bytes
        self._flights: dict[str, Future[V]] = {}
        self._lock = threading.Lock()  # guards memory, room, flights and stats; never held over I/O

    def get(self, key: str, make: Callable[[], V]) -> V:
        while True:
            value, flight = self._recall_or_board(key)
            if value is not None:
                return value
            if flight is not None:
                try:
                    return flight.result()
                except _Abandoned:
                    continue
            try:
                value = self._read(key)
                if value is None:
                    value = make()
                    self._write(key, value)
            except BaseException as error:
                self._fail(key, error)
                raise
            self._land(key, value)
            return value

    async def get_async(self, key: str, make: Callable[[], Awaitable[V]]) -> V:
        while True:
            value, flight = self._recall_or_board(key)
            if value is not None:
                return value
            if flight is not None:
                try:
                    return await _wait(flight)
                except _Abandoned:
                    continue
            try:
                value = await self._off_loop(self._read, key)
                if value is None:
                    value = await make()
                    await self._off_loop(self._write, key, value)
            except BaseException as error:
                self._fail(key, error)
                raise
            self._land(key, value)
            return value

    async def get_many(
        self, keys: Sequence[str], make: Callable[[Sequence[int]], Awaitable[Sequence[V | Exception]]]
    ) -> list[V | Exception]:
        """All keys at once; `make` is called once, with the positions of what is missing."""
        results: dict[int, V | Exception] = {}
        flights: dict[int, Future[V]] = {}
        mine: dict[int, str] = {}  # positions we must settle, whatever happens
        try:
            for k, key in enumerate(keys):
                value, flight = self._recall_or_board(key)
                if value is not None:
                    results[k] = value
                elif flight is not None:
                    flights[k] = flight
                else:
                    mine[k] = key
            for k, key in list(mine.items()):
                value = await self._off_loop(self._read, key)
                if value is not None:
                    results[k] = value
                    self._land(mine.pop(k), value)
            missing = list(mine)
            for k, made in zip(missing, await make(missing) if missing else (), strict=True):
                results[k] = made
                if isinstance(made, Exception):
                    self._fail(mine.pop(k), made)
                else:
                    await self._off_loop(self._write, keys[k], made)
                    self._land(mine.pop(k), made)
        except BaseException as error:
            for key in mine.values():
                self._fail(key, error)
            raise
        for k, flight in flights.items():
            try:
                value = await _wait(flight)
                results[k] = value
            except _Abandoned:

                async def again(_: Sequence[int], k: int = k) -> Sequence[V | Exception]:
                    return await make([k])

                [results[k]] = await self.get_many([keys[k]], again)
            except Exception as error:  # noqa: BLE001 - in a batch a failure is its exception
                results[k] = error
        return [results[k] for k in range(len(keys))]

    def _recall_or_board(self, key: str) -> tuple[V | None, Future[V] | None]:
        """The value if it is in memory; else someone's call under way; else (None, None): it's our turn."""
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                self.stats.hits += 1
                return self._memory[key], None
            flight = self._flights.get(key)
            if flight is not None:
                self.stats.joined += 1
                return None, flight
            flight = self._flights[key] = Future()
            flight.set_running_or_notify_cancel()  # from now on no waiter can cancel it
            return None, None

    def _land(self, key: str, value: V) -> None:
        with self._lock:
            self._memory[key] = value
            self._room -= self._codec.weight(value)
            while self._room < 0 and len(self._memory) > 1:
                _, dropped = self._memory.popitem(last=False)
                self._room += self._codec.weight(dropped)
            flight = self._flights.pop(key)
        flight.set_result(value)

    def _fail(self, key: str, error: BaseException) -> None:
        with self._lock:
            flight = self._flights.pop(key)
        flight.set_exception(error if isinstance(error, Exception) else _Abandoned())

    async def _off_loop(self, work: Callable[..., Any], *args: Any) -> Any:
        """File work in a thread; without a directory there is none."""
        if self._directory is None:
            return work(*args)
        return await asyncio.to_thread(work, *args)

    def _path(self, directory: Path, key: str) -> Path:
        return directory / key[:2] / (key + self._codec.suffix)

    def _read(self, key: str) -> V | None:
        value = None if self._directory is None else self._read_file(self._path(self._directory, key))
        with self._lock:
            if value is None:
                self.stats.misses += 1
            else:
                self.stats.hits += 1
        return value

    def _read_file(self, path: Path) -> V | None:
        try:
            return self._codec.decode(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("%s is damaged and will be made again: %s", path, error)
            path.unlink(missing_ok=True)
            with self._lock:
                self.stats.corrupt += 1
            return None

    def _write(self, key: str, value: V) -> None:
        if self._directory is None:
            return
        path = self._path(self._directory, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # whoever reads sees the old state or the whole file, never half of one
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self._codec.encode(value))
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise


async def _wait(flight: Future[V]) -> V:
    return await asyncio.shield(asyncio.wrap_future(flight))


def _checked(image: RGB, source: RGB) -> RGB:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != source.shape:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise EditorError(f"the editor returned {got} for a source of uint8 {source.shape}")
    image = image.copy()
    image.flags.writeable = False
    return image


def _checked_or_error(image: RGB, source: RGB) -> RGB | Exception:
    try:
        return _checked(image, source)
    except EditorError as error:
        return error


def _identity(name: str, revision: str, settings: Mapping[str, Any]) -> bytes:
    return json.dumps([name, revision, dict(settings)], sort_keys=True).encode()


def _pixels(image: RGB) -> bytes:
    return f"{image.dtype}{image.shape}".encode() + image.tobytes()


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))  # so that no two lists of parts run together alike
        digest.update(part)
    return digest.hexdigest()

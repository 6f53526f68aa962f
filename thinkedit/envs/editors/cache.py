"""A cache around any editor or judge: the same question is asked once, by whomever and however often."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image, PngImagePlugin

from thinkedit.envs.editors.base import Editor, EditRequest
from thinkedit.envs.editors.disk import Disk
from thinkedit.envs.editors.single_flight import CacheStats, Codec, SingleFlight
from thinkedit.envs.services import checked_edit
from thinkedit.errors import EditorError
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.checked import checked_verdict
from thinkedit.rewards.limits.meter import Meter
from thinkedit.types import RGB, JudgeIdentity, Scores, Verdict

S = TypeVar("S", bound="Editor | Judge")
V = TypeVar("V")
log = logging.getLogger(__name__)

MEMORY_BYTES = 128 * 2**20
DISK_BYTES = 10 * 2**30
_CHECKSUM = "thinkedit:sha256"  # a text entry of our PNG files


class _Pictures(Codec[RGB]):
    suffix = ".png"

    def encode(self, value: RGB) -> bytes:
        buffer, note = io.BytesIO(), PngImagePlugin.PngInfo()
        note.add_text(_CHECKSUM, _digest(value))
        Image.fromarray(value).save(buffer, "PNG", pnginfo=note)
        return buffer.getvalue()

    def decode(self, data: bytes) -> RGB:
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                pixels = np.array(image)
                checksum = image.info.get(_CHECKSUM)
        except (OSError, SyntaxError) as error:  # PIL's errors on damaged files
            raise ValueError(str(error)) from error
        if checksum != _digest(pixels):  # PIL lets some damage pass
            raise ValueError("its pixels don't match its checksum")
        return pixels

    def weight(self, value: RGB) -> int:
        return value.nbytes


class _Verdicts(Codec[Verdict]):
    suffix = ".json"

    def encode(self, value: Verdict) -> bytes:
        record = asdict(value)
        return json.dumps({"verdict": record, "sha256": _digest(json.dumps(record))}).encode()

    def decode(self, data: bytes) -> Verdict:
        try:
            file = json.loads(data)
            record = file["verdict"]
            if file["sha256"] != _digest(json.dumps(record)):
                raise ValueError("its verdict doesn't match its checksum")
            return Verdict(**record | {"scores": Scores(**record["scores"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a verdict: {error!r}") from error

    def weight(self, value: Verdict) -> int:
        return len(self.encode(value))  # whole replies are in its notes

    def lasting(self, value: Verdict) -> bool:
        return value.lasting


class _Cached(Generic[S, V]):
    """An editor or a judge behind a `SingleFlight`.

    Args:
        directory: keep values there as files too, for other processes and later runs; None keeps
            the last ones in memory only.
        memory_bytes: values used least lately are dropped from memory beyond this.
        disk_bytes: likewise for all files of the directory, whoever wrote them.
    """

    _codec: Codec[V]

    def __init__(
        self,
        inner: S,
        directory: str | os.PathLike[str] | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        self.name, self.revision = inner.name, inner.revision
        self.inline = inner.inline and directory is None
        self._inner = inner
        self._identity = json.dumps([self.name, self.revision, dict(inner.settings())], sort_keys=True)
        disk = None if directory is None else Disk(directory, self._codec.suffix, disk_bytes)
        self._store = SingleFlight(self._codec, disk, memory_bytes)

    @property
    def stats(self) -> CacheStats:
        return self._store.stats

    @property
    def inner(self) -> S:
        """What the cache is around."""
        return self._inner

    def settings(self) -> Mapping[str, Any]:
        return self.inner.settings()

    def use_meter(self, meter: Meter) -> None:
        self._inner.use_meter(meter)

    def close(self) -> None:
        self.inner.close()

    def _key(self, *question: RGB | str | int) -> str:
        return _digest(self._identity, *question)


class CachedEditor(_Cached[Editor, RGB], Editor):
    """An editor that makes each distinct edit once.

    The key is the SHA-256 of source pixels and shape, prompt, seed, and the editor's name, revision
    and settings. Errors are never kept, and neither is what is no edit of the source
    (`checked_edit`). Callers that ask for the same edit at the same time, from any task, thread or
    process with the same directory, share one call; if the one who makes it is cancelled or killed,
    another takes over. An editor that is not deterministic stays so by its own word, but per seed
    its first answer is the answer, as long as the cache keeps it.

    Files are PNGs. See `_Cached` for the arguments.
    """

    _codec = _Pictures()

    def __init__(
        self, editor: Editor, directory: str | os.PathLike[str] | None = None, **bounds: int
    ) -> None:
        super().__init__(editor, directory, **bounds)
        self.deterministic = editor.deterministic
        if not editor.deterministic:
            log.info("editor %r is not deterministic: its first edit for each seed is kept", self.name)

    @property
    def makes_batches(self) -> bool:
        return self.inner.makes_batches

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        def make() -> RGB:
            return checked_edit(self.inner.edit(source, prompt, seed=seed), source, self.name)

        return self._store.get(self._key(source, prompt, seed), make).copy()

    async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        if self.inline:
            return self.edit(source, prompt, seed=seed)

        async def make() -> RGB:
            return checked_edit(await self.inner.edit_async(source, prompt, seed=seed), source, self.name)

        return (await self._store.get_async(self._key(source, prompt, seed), make)).copy()

    async def edit_many(self, requests: Sequence[EditRequest]) -> list[RGB | Exception]:
        """As `Editor.edit_many`; what is missing goes to the editor's own `edit_many` as one batch."""

        async def make(missing: Sequence[int]) -> list[RGB | Exception]:
            made = await self.inner.edit_many([requests[k] for k in missing])
            return [self._checked(image, requests[k].source) for k, image in zip(missing, made, strict=True)]

        keys = [self._key(request.source, request.prompt, request.seed) for request in requests]
        results = await self._store.get_many(keys, make)
        return [result if isinstance(result, Exception) else result.copy() for result in results]

    def _checked(self, result: RGB | Exception, source: RGB) -> RGB | Exception:
        try:
            return result if isinstance(result, Exception) else checked_edit(result, source, self.name)
        except EditorError as error:
            return error


class CachedJudge(_Cached[Judge, Verdict], Judge):
    """A judge that grades each distinct edit once; see `CachedEditor`. Files are JSON.

    Verdicts that are not `lasting` go to those who wait for them, and are not kept.

    The key also holds the identities that the judge's verdicts may bear, so that none of another
    judge is ever taken from a directory, not even where its author forgot to raise the revision.
    """

    _codec = _Verdicts()

    def __init__(self, judge: Judge, directory: str | os.PathLike[str] | None = None, **bounds: int) -> None:
        super().__init__(judge, directory, **bounds)
        self._identity += json.dumps(sorted(judge.identities() or ()))

    def identities(self) -> frozenset[JudgeIdentity] | None:
        return self.inner.identities()

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        def make() -> Verdict:
            return checked_verdict(self.inner.judge(source, edited, instruction), self.name)

        return self._store.get(self._key(source, edited, instruction), make)

    async def judge_async(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        if self.inline:
            return self.judge(source, edited, instruction)

        async def make() -> Verdict:
            return checked_verdict(await self.inner.judge_async(source, edited, instruction), self.name)

        return await self._store.get_async(self._key(source, edited, instruction), make)


def _digest(*parts: RGB | str | int) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            data = f"{part.dtype}{part.shape}".encode() + part.tobytes()
        else:
            data = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8))  # so that no two lists of parts run together alike
        digest.update(data)
    return digest.hexdigest()

"""The editor contract: what thinkedit asks of any image editor."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from thinkedit.rewards.limits.meter import UNMETERED, Meter
from thinkedit.types import RGB


@dataclass(frozen=True, slots=True, eq=False)
class EditRequest:
    """One edit to make: always from the source image, never from an earlier edit."""

    source: RGB
    prompt: str
    seed: int


class Editor(ABC):
    """An instruction-driven image editor. Subclasses write `edit`; the rest has defaults.

    Attributes `name`, `revision` and `deterministic`, with `settings()`, identify
    the editor in cache keys and in stored trajectories. `inline` says an edit is so cheap
    (well under a millisecond) that a thread would cost more than it saves.
    Clients connect on first use, so that building one opens nothing.
    """

    Config: ClassVar[type[Any]]
    name: str
    revision: str = "1"
    deterministic: bool = True
    inline: bool = False
    metered: ClassVar[bool] = False
    """Whether it enters `meter` around its calls; only then can `limits.editor` hold."""
    meter: Meter = UNMETERED
    """For each call that is paid for or limited, every try for itself: `async with self.meter.call(…)`."""

    @abstractmethod
    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        """Return a new image of the same height and width.

        Args:
            source: uint8, (H, W, 3). Not modified.
            prompt: what to change, in plain language; any Unicode text.
            seed: equal seeds give equal pixels where `deterministic` says so.

        Raises:
            EditorError: no usable image came back.
            ServiceTimeout: nothing came back in time.
        """

    async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        """As `edit`, without blocking the event loop."""
        if self.inline:
            return self.edit(source, prompt, seed=seed)
        return await asyncio.to_thread(self.edit, source, prompt, seed=seed)

    async def edit_many(self, requests: Sequence[EditRequest]) -> list[RGB | Exception]:
        """All requests at once; a failed one is its exception in the list, never an image."""
        results = await asyncio.gather(
            *(self.edit_async(r.source, r.prompt, seed=r.seed) for r in requests), return_exceptions=True
        )
        return [result if not isinstance(result, BaseException) else _plain(result) for result in results]

    @property
    def makes_batches(self) -> bool:
        """Whether `edit_many` is its own, so that a batch is more to it than its edits one by one."""
        return type(self).edit_many is not Editor.edit_many

    def settings(self) -> Mapping[str, Any]:
        """Every setting that changes pixels (steps, guidance, quirks); part of the cache key."""
        return {}

    def use_meter(self, meter: Meter) -> None:
        """Called at most once, before the first edit. An editor that asks others hands it on to them."""
        self.meter = meter

    def close(self) -> None:  # noqa: B027 - most have nothing to release
        """Release resources. May be called twice."""


def _plain(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    raise error

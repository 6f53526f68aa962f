"""What editors behind a network share: one event loop with all connections, whoever calls from wherever."""

from __future__ import annotations

import os
from abc import abstractmethod

from thinkedit.background import BackgroundLoop
from thinkedit.envs.editors.base import Editor
from thinkedit.errors import ConfigError, EditorError
from thinkedit.types import RGB


class RemoteEditor(Editor):
    """Runs `_edit` on an event loop in a thread of its own, started by the first edit.

    So connections, counts and circuit breakers are shared by callers in any thread and any loop, and
    outlive each of them. A cancelled `edit_async` cancels its request. `close` ends edits under way
    with an `EditorError`; an edit after it connects anew.
    """

    def __init__(self) -> None:
        self._background = BackgroundLoop("the editor", EditorError)

    @abstractmethod
    async def _edit(self, source: RGB, prompt: str, seed: int) -> RGB:
        """One edit, on the editor's own loop. Raises as `Editor.edit` does."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Let go of connections, on the editor's own loop."""

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return self._background.run(self._edit(source, prompt, seed))

    async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return await self._background.run_async(self._edit(source, prompt, seed))

    def close(self) -> None:
        self._background.close(self._disconnect)


def secret_from(variable: str | None, option: str) -> str | None:
    """The value of an environment variable that a config names; None when it names none.

    Raises:
        ConfigError: it is not set, or can't go into a header.
    """
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"{option} names the environment variable {variable!r}, which is not set")
    if not (value.isascii() and value.isprintable()) or " " in value:
        # refused here, for later the HTTP library would quote it
        raise ConfigError(f"the environment variable {variable!r} holds what no token or key may hold")
    return value

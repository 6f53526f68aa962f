"""An editor that `thinkedit serve-editor` serves in the same Ray cluster, reached without HTTP."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import ClassVar

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from thinkedit.actors.serving.calls import ServeCalls
from thinkedit.actors.serving.work import EditorBusy
from thinkedit.envs.editors.remote import RemoteEditor
from thinkedit.errors import ConfigError, EditorError, ServiceTimeout
from thinkedit.types import RGB


@dataclass
class ServedConfig:
    """Which application, and how it is told apart from others in cache keys and stored episodes."""

    application: str = "editor"  # `thinkedit serve-editor --name`; the editor's own name unless given
    revision: str = "1"  # of what is served there
    deterministic: bool = False  # equal seeds give equal pixels
    address: str = "auto"  # of the Ray cluster, where this process is in none yet
    timeout_s: float = 300.0  # one edit, waiting for a replica included


class ServedEditor(RemoteEditor):
    """Calls the replicas through a Serve handle; arrays travel through Ray's object store.

    While the replicas' queue is full it waits. A replica that dies under an edit costs one more try
    elsewhere.
    """

    Config: ClassVar[type[ServedConfig]] = ServedConfig

    def __init__(self, config: ServedConfig) -> None:
        """
        Raises:
            ConfigError: timeout_s is not above 0.
        """
        super().__init__()
        if not config.timeout_s > 0:
            raise ConfigError(f"timeout_s must be above 0, got {config.timeout_s}")
        self.name, self.revision = config.application, config.revision
        self.deterministic = config.deterministic
        self._config = config
        self._calls: ServeCalls | None = None
        self._connecting = asyncio.Lock()

    async def _edit(self, source: RGB, prompt: str, seed: int) -> RGB:
        try:
            async with asyncio.timeout(self._config.timeout_s):
                calls = await self._connected()
                while True:
                    try:
                        return (await calls.edit(source, prompt, seed)).picture
                    except EditorBusy:
                        await asyncio.sleep(random.uniform(0.1, 0.5))
        except TimeoutError as error:
            raise ServiceTimeout(
                f"editor {self.name!r} gave no image within {self._config.timeout_s:g} s"
            ) from error

    async def _disconnect(self) -> None:
        self._calls = None
        self._connecting = asyncio.Lock()  # the next edit runs on another loop

    async def _connected(self) -> ServeCalls:
        async with self._connecting:
            if self._calls is None:
                self._calls = await asyncio.to_thread(self._connect)
        return self._calls

    def _connect(self) -> ServeCalls:
        application, cluster = self._config.application, self._config.address
        try:
            if not ray.is_initialized():
                ray.init(address=cluster, log_to_driver=False)
            if application not in serve.status().applications:
                raise EditorError(
                    f"no editor is served as {application!r} in this Ray cluster: "
                    f"start it there with `thinkedit serve-editor --address ... --name {application}`"
                )
            return ServeCalls(application)
        except (ConnectionError, RayServeException) as error:
            raise EditorError(
                f"the Ray cluster that serves {application!r} can't be reached: {error}"
            ) from error

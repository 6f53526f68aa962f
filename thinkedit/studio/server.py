"""Serves the studio until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from thinkedit.actors.inference import open_thinking_editor
from thinkedit.actors.serving.address import is_loopback, listen, token_for
from thinkedit.configs.schema import Config
from thinkedit.studio.app import build_app
from thinkedit.studio.runs import Runs

TOKEN_VARIABLE = "THINKEDIT_TOKEN"
_GOODBYE_S = 3  # for answers under way, when it ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a studio is served, and where its runs go.

    port: 0 picks a free one. token_env: the variable that holds the token; other addresses than
    loopback need one. keep: a folder for every run; None: a temporary one, gone at the end.
    at_once: runs played at the same time.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token_env: str = TOKEN_VARIABLE
    keep: Path | None = None
    at_once: int = 1


def serve(config: Config, place: Place, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        on_ready: called with the page's address when it can be opened.

    Raises:
        ConfigError: an address or a token that won't do; and see `open_thinking_editor`.
    """
    token = token_for(place.host, place.token_env)
    own = {place.host.casefold(), "localhost", "127.0.0.1", "::1"}
    with ExitStack() as stack:
        socket = stack.enter_context(listen(place.host, place.port))
        root = place.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thinkedit-")))
        host = f"[{place.host}]" if ":" in place.host else place.host
        url = f"http://{host}:{socket.getsockname()[1]}"

        async def until_told() -> None:
            async with open_thinking_editor(config) as thinking:
                runs = Runs(thinking, root, at_once=place.at_once, forever=place.keep is not None)
                app = build_app(
                    thinking, runs, token=token, hosts=frozenset(own) if is_loopback(place.host) else None
                )
                server = uvicorn.Server(
                    uvicorn.Config(
                        app,
                        log_level="warning",
                        access_log=False,
                        server_header=False,
                        ws="none",
                        lifespan="off",
                        timeout_graceful_shutdown=_GOODBYE_S,
                    )
                )
                on_ready(url)
                try:
                    await server.serve(sockets=[socket])
                finally:
                    await runs.close()

        # uvicorn raises the signal again when it has ended: SIGTERM would kill before anything is cleaned up.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            asyncio.run(until_told())

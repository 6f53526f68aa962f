"""`thinkedit studio`: the same as `thinkedit edit`, in a web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thinkedit.cli import options


def studio(
    overrides: options.Overrides = None,
    config: options.InferenceConfig = None,
    thinker: options.Thinker = None,
    model: options.Model = None,
    mode: options.Mode = None,
    accept_at: options.AcceptAt = None,
    host: Annotated[str, typer.Option(help="Other addresses than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 7860,
    token_env: Annotated[
        str, typer.Option(help="The environment variable that holds the token.")
    ] = "THINKEDIT_TOKEN",
    keep: Annotated[
        Path | None,
        typer.Option(help="A folder for every run's pictures.", show_default="a temporary one"),
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Runs played at the same time.")] = 1,
) -> None:
    """Serve a page for editing pictures with a thinker that looks on.

    Ends on Ctrl-C or SIGTERM. See docs/editing.md.
    """
    from thinkedit.studio.server import Place, serve

    loaded = options.for_inference(
        config, overrides, thinker=thinker, model=model, mode=mode, accept_at=accept_at, more={}
    )
    place = Place(host=host, port=port, token_env=token_env, keep=keep, at_once=at_once)
    serve(loaded, place, lambda url: typer.echo(f"open {url}"))

"""`thinkedit serve-editor`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from thinkedit.cli import options


def serve_editor(
    overrides: options.Overrides = None,
    config: options.Config = "demo",
    editor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Instead of the recipe's: a file of the group, a plug-in."),
    ] = None,
    replicas: Annotated[int, typer.Option(help="Copies of the editor.")] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(help="Add copies up to this many while edits wait.", show_default="never")
    ] = None,
    gpus: Annotated[float, typer.Option(help="GPUs of one copy; 0.5: two share one.")] = 0.0,
    cpus: Annotated[float, typer.Option(help="CPUs of one copy, for Ray's bookkeeping.")] = 1.0,
    concurrency: Annotated[int, typer.Option(help="Edits at a time in one copy.")] = 1,
    queue: Annotated[int, typer.Option(help="Edits that may wait; further ones get status 503.")] = 100,
    host: Annotated[str, typer.Option(help="Other addresses than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8007,
    token_env: Annotated[
        str, typer.Option(help="The environment variable that holds the token.")
    ] = "THINKEDIT_TOKEN",
    max_body_mib: Annotated[int, typer.Option(help="Largest request.")] = 64,
    name: Annotated[
        str | None,
        typer.Option(help="Of the application in the Ray cluster.", show_default="the editor's"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to join.", show_default="RAY_ADDRESS, else a new one here"),
    ] = None,
) -> None:
    """Serve an editor over HTTP, as replicas on Ray Serve.

    Ends on Ctrl-C or SIGTERM when the edits under way are done. See docs/serving-editors.md.
    """
    from thinkedit import plugins
    from thinkedit.actors.serving.server import Serving, run
    from thinkedit.actors.serving.work import EditorSpec
    from thinkedit.configs.load import load_config

    picked = load_config(config, [*_pick(editor), *(overrides or ())]).editor
    plugins.build("editors", picked.name, picked.options).close()  # a wrong option is better told now
    spec = EditorSpec(picked.name, picked.options, concurrency=concurrency, timeout_s=picked.timeout_s)
    serving = Serving(
        editor=spec,
        application=name or picked.name,
        host=host,
        port=port,
        replicas=replicas,
        max_replicas=max_replicas,
        gpus=gpus,
        cpus=cpus,
        queue=queue,
        token_env=token_env,
        max_body_bytes=max_body_mib * 2**20,
        address=address or os.environ.get("RAY_ADDRESS"),
    )
    typer.echo(f"starting {replicas} x {picked.name}", err=True)
    run(serving, lambda url: typer.echo(f"serving {picked.name} at {url}"))


def _pick(editor: str | None) -> list[str]:
    """Overrides that choose an editor by the name of its file, or of its plug-in."""
    if editor is None:
        return []
    from thinkedit import plugins
    from thinkedit.configs.load import choices
    from thinkedit.configs.schema import ServiceConfig
    from thinkedit.errors import UnknownName

    files, known = choices("editor"), plugins.available("editors")
    if editor in files:
        return [f"editor={editor}"]
    if editor in known:
        return [f"editor.name={editor}", f"editor.timeout_s={ServiceConfig().timeout_s}"]
    raise UnknownName("editor", editor, {*files, *known})

"""`thinkedit check-judge` and `thinkedit serve-judge`."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Annotated

import typer

from thinkedit.cli import options


def check_judge(config: options.Config = "demo", overrides: options.Overrides = None) -> None:
    """Put pairs of edits of known order to the judge, and print how often it saw which is better.

    The pairs are those of judge.canaries: of the built-in world, or your own. Exits with code 1 when
    fewer than judge.canaries.warn_below are in the right order, or one got no verdict.
    """
    from rich.console import Console
    from rich.table import Table

    from thinkedit.configs.load import load_config
    from thinkedit.envs.build import Parts
    from thinkedit.envs.canaries import Canaries

    loaded = load_config(config, overrides or ())
    parts = Parts.from_config(loaded)
    try:
        report = asyncio.run(Canaries.from_parts(parts).ask())
    finally:
        parts.close()
    right, wrong = Counter(report.right), Counter(report.wrong)
    failed = Counter(kind for kind, _ in report.failed)
    table = Table(title=f"{loaded.judge.name}: which of two edits is better", title_justify="left")
    for column in ("the worse edit is", "right", "wrong", "no verdict"):
        table.add_column(column, justify="left" if column.startswith("the") else "right")
    for kind in sorted({*right, *wrong, *failed}):
        table.add_row(kind, str(right[kind]), str(wrong[kind]), str(failed[kind]))
    Console().print(table)
    accuracy = report.accuracy
    typer.echo("accuracy: " + ("none, no pair was judged" if accuracy is None else f"{accuracy:.2f}"))
    if alarm := report.alarm(loaded.judge.canaries.warn_below):
        typer.echo(alarm, err=True)
        raise typer.Exit(1)


def serve_judge(
    model: Annotated[str, typer.Argument(help="A vision-language model: a Hugging Face folder or hub name.")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- ARGUMENTS", help="Further ones of vLLM's server.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What clients call it (judge.options.model).", show_default="MODEL")
    ] = None,
    host: Annotated[str, typer.Option(help="Other addresses than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    token_env: Annotated[
        str, typer.Option(help="The environment variable that holds the token.")
    ] = "THINKEDIT_TOKEN",
) -> None:
    """Serve a vision-language model with vLLM, for the viescore and editscore judges.

    Ends on Ctrl-C or SIGTERM. See docs/judges.md.
    """
    from thinkedit.actors.serving.judge import command, environment

    arguments = command(model, name=name, host=host, port=port, more=more or ())
    settings = environment(host, token_env)
    typer.echo(f"starting vLLM; {name or model} will be at http://{host}:{port}/v1", err=True)
    os.execve(arguments[0], arguments, dict(settings))  # signals reach vLLM itself

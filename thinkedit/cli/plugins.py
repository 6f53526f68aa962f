"""`thinkedit plugins`."""

from __future__ import annotations

from typing import Annotated

import typer


def plugins(
    kind: Annotated[
        str | None, typer.Argument(help="editors, judges, reward_terms, tasks or advantages.")
    ] = None,
) -> None:
    """List every plug-in by kind: name, package, object, and what is wrong with it, if anything.

    Exits with code 1 when one is broken.
    """
    from thinkedit.errors import ConfigError
    from thinkedit.plugins import KINDS, available, load

    broken = 0
    for each in (kind,) if kind else KINDS:
        points = available(each)
        typer.secho(each, bold=True)
        for name, point in sorted(points.items()):
            try:
                load(each, name)
            except ConfigError as error:
                broken += 1
                state = f"  broken: {error.__cause__}"
            else:
                state = ""
            package = point.dist.name if point.dist else "?"
            typer.echo(f"  {name:<18}{package:<16}{point.value}{state}")
    if broken:
        raise typer.Exit(1)

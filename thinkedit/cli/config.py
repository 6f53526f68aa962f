"""`thinkedit config`."""

from __future__ import annotations

from typing import Annotated

import typer

from thinkedit.cli import options


def config(
    config: options.Config = "demo",
    overrides: options.Overrides = None,
    list_: Annotated[bool, typer.Option("--list", help="List recipes and group choices.")] = False,
) -> None:
    """Print a configuration as a run would see it, with every default filled in.

    What can't run here (a plug-in that is not installed) is said on stderr.
    """
    from thinkedit.configs.check import unmet
    from thinkedit.configs.load import GROUPS, choices, load_config, recipes, to_yaml
    from thinkedit.rewards.rubric import Rubric

    if list_:
        typer.echo("recipes: " + ", ".join(recipes()))
        for group in GROUPS:
            typer.echo(f"{group}: " + ", ".join(choices(group)))
        return
    loaded = load_config(config, overrides or (), require_plugins=False)
    Rubric.from_config(loaded.reward)
    typer.echo(to_yaml(loaded), nl=False)
    for problem in unmet(loaded):
        typer.echo(f"not runnable here: {problem}", err=True)

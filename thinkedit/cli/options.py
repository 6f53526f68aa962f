"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from typing import Annotated

import typer

Config = Annotated[
    str,
    typer.Option("--config", "-c", metavar="NAME|PATH", help="A recipe, a YAML file, or a run folder."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="grpo.lr=1e-5 sets a value; editor=procedural picks a file of a group.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")]

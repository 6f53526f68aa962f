"""`thinkedit check-judge`."""

from __future__ import annotations

import asyncio
from collections import Counter

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

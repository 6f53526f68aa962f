"""`thinkedit build-data`: raw trajectories become training sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinkedit.cli import options

if TYPE_CHECKING:
    from thinkedit.data.figures import Figures


def build_data(
    trajectories: Annotated[
        Path,
        typer.Argument(metavar="TRAJECTORIES", help="A .jsonl file of trajectories, or a folder of them."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="A folder that is not there yet.")
    ],
    overrides: options.Overrides = None,
    config: options.Config = "demo",
) -> None:
    """Filter, truncate, unroll, de-duplicate, balance and split raw trajectories.

    data.KEY=VALUE sets the rules (thinkedit config shows them), seed=N the draws. Writes SFT and RL
    sets in every format of data.formats, report.html, report.json, and in dropped.jsonl why each of
    the other trajectories was left out.
    """
    from thinkedit.configs.load import load_config
    from thinkedit.data.build import build
    from thinkedit.envs.protocol import Protocol

    loaded = load_config(config, overrides or (), require_plugins=False)
    protocol = Protocol(loaded.protocol, accept_at=loaded.episode.accept_at)
    with _stages() as on_progress:
        figures = build(trajectories, out, loaded.data, protocol, seed=loaded.seed, on_progress=on_progress)
    _show(figures, out)


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of a build, as it comes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>22}"), BarColumn(bar_width=20), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(stage: str, done: int, whole: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=whole)
            bars.update(tasks[stage], completed=done, total=whole)

        yield on_progress


def _show(figures: Figures, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from thinkedit.data.report import FATES

    console = Console(soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"{figures.trajectories:,} trajectories")
    table.add_column("n", justify="right")
    for fate, name in FATES.items():
        if count := figures.fates.get(fate, 0):
            table.add_row(name, f"{count:,}")
    console.print(table)
    for name, count in sorted(figures.records.items()):
        console.print(f"{count:,} records {name}")
    typer.echo(out / "report.html")

"""`thinkedit collect`, `build-data` and `convert-data`: from tasks to trajectories to training sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinkedit.cli import options
from thinkedit.cli.progress import counter

if TYPE_CHECKING:
    from thinkedit.configs.schema import Config
    from thinkedit.data.figures import Figures


def collect(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder, or one to go on with.")
    ],
    overrides: options.Overrides = None,
    config: options.InferenceConfig = None,
    expert: Annotated[
        str | None,
        typer.Option(
            metavar="URL|NAME|FOLDER",
            help="An OpenAI-compatible server, naive_expert, or a policy's folder.",
            show_default="inference.thinker",
        ),
    ] = None,
    model: options.Model = None,
    split: Annotated[str, typer.Option(help="Of the tasks.")] = "train",
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", min=1, help="Tasks, from the split's first.", show_default="all"),
    ] = None,
    edits: Annotated[int, typer.Option(min=2, help="Per task at most.")] = 5,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="This process takes the I-th of N parts of the tasks.")
    ] = "1/1",
    concurrency: Annotated[int, typer.Option(min=1, help="Tasks under way at a time.")] = 32,
    failures: Annotated[int, typer.Option(min=1, help="Failed tasks in a row that end it.")] = 20,
) -> None:
    """Let an expert steer the editor over tasks, and keep every edit and every reply.

    May be killed at any time: the same command goes on where it was. Failed tasks are tried again
    by the next run. See docs/data.md.
    """
    import asyncio

    from thinkedit import plugins
    from thinkedit.actors.inference import open_thinking_editor
    from thinkedit.data.collect import Collected, Plan
    from thinkedit.data.collect import collect as play

    part, parts = _shard(shard)
    plan = Plan(
        split=split,
        count=count,
        shard=part,
        shards=parts,
        edits=edits,
        concurrency=concurrency,
        failures=failures,
    )
    loaded = options.for_inference(
        config, overrides, thinker=expert, model=model, mode=None, accept_at=None, more={}
    )
    mode = "expert" if loaded.inference.thinker == "server" else "while"
    tasks = plugins.build("tasks", loaded.tasks.name, loaded.tasks.options)
    whole = len(plan.indices(tasks))

    async def run() -> Collected:
        async with open_thinking_editor(loaded) as thinking:
            asked = thinking.options(mode=mode, select="last", turns=edits - 1)
            with counter("collect", whole) as bar:
                return await play(
                    thinking, tasks, out, plan, asked, progress=lambda c, _: bar(c.before + c.done + c.failed)
                )

    found = asyncio.run(run())
    typer.echo(f"{found.done:,} collected, {found.before:,} were there, {found.failed:,} failed: {out}")
    if found.failed:
        typer.echo("run the same command again to try the failed ones; why they failed is in failures-*.log")
        raise typer.Exit(1)


def build_data(
    trajectories: Annotated[
        Path, typer.Argument(metavar="TRAJECTORIES", help="A .jsonl file, or a folder of them.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="A folder that is not there yet.")
    ],
    overrides: options.Overrides = None,
    config: options.Config = "demo",
    score: Annotated[
        bool, typer.Option("--score", help="Have the configured judge grade edits without a score.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Of --score: trajectories at a time.")] = 32,
    failures: Annotated[
        int, typer.Option(min=1, help="Of --score: failed trajectories in a row that end it.")
    ] = 20,
    without_failed: Annotated[
        bool,
        typer.Option("--without-failed", help="Of --score: leave out trajectories that the judge failed at."),
    ] = False,
) -> None:
    """Filter, truncate, unroll, de-duplicate, balance and split raw trajectories.

    data.KEY=VALUE sets the rules (thinkedit config shows them), seed=N the draws. Writes SFT and RL
    sets in every format of data.formats, report.html, report.json, and in dropped.jsonl why each of
    the other trajectories was left out. --score keeps the verdicts in FOLDER.scored.jsonl; where the
    judge failed the build waits for the next try of the same command, unless --without-failed.
    """
    from thinkedit.configs.load import load_config
    from thinkedit.data.build import build
    from thinkedit.envs.protocol import Protocol

    loaded = load_config(config, overrides or (), require_plugins=score)
    protocol = Protocol(loaded.protocol, accept_at=loaded.episode.accept_at)
    source = trajectories
    if score:
        source = out.with_name(f"{out.name}.scored.jsonl")
        _score(loaded, trajectories, source, concurrency, failures, without_failed)
    with _stages() as on_progress:
        figures = build(source, out, loaded.data, protocol, seed=loaded.seed, on_progress=on_progress)
    _show(figures, out)


def convert_data(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What to read.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="What to write.")],
    from_: Annotated[str, typer.Option("--from", help="records, reference, verl-rl, sharegpt or verl-sft.")],
    to: Annotated[str, typer.Option("--to", help="One of the same.")],
    overrides: options.Overrides = None,
    config: options.Config = "demo",
) -> None:
    """Rewrite a file of training data in another format, checking every record.

    Prompts are worded by the configured protocol; examples (sharegpt, verl-sft) hold worded prompts
    already, so they become examples only.
    """
    from thinkedit.configs.load import load_config
    from thinkedit.data.convert import convert
    from thinkedit.envs.protocol import Protocol
    from thinkedit.errors import ConfigError

    if target.exists():
        raise ConfigError(f"{target} exists: choose another name, or delete it")
    loaded = load_config(config, overrides or (), require_plugins=False)
    protocol = Protocol(loaded.protocol, accept_at=loaded.episode.accept_at)
    count = convert(source, from_, target, to, protocol)
    typer.echo(f"{count:,} records: {target}")


def _score(
    config: Config, source: Path, scored: Path, concurrency: int, failures: int, without_failed: bool
) -> None:
    """Grade what has no score, into a file that later runs go on with."""
    import asyncio

    from thinkedit.data.scoring import score_trajectories
    from thinkedit.envs.build import Parts
    from thinkedit.envs.services import Services

    parts = Parts.from_config(config)
    services = Services(parts.editor, parts.judge, config.editor.timeout_s, config.judge.timeout_s)
    try:
        with _stages() as told:
            found = asyncio.run(
                score_trajectories(
                    source,
                    scored,
                    services,
                    concurrency=concurrency,
                    failures=failures,
                    without_failed=without_failed,
                    progress=lambda found, whole: told(
                        "score", found.before + found.done + found.failed.total(), whole
                    ),
                )
            )
    finally:
        parts.close()
    typer.echo(
        f"{found.graded:,} edits graded, {found.refused:,} trajectories end early at a refusal, "
        f"{found.failed.total():,} left out, {found.before:,} were there: {scored}"
    )


def _shard(text: str) -> tuple[int, int]:
    """ "2/4" as (1, 4)."""
    from thinkedit.errors import ConfigError

    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise ConfigError(f"--shard {text}: must look like 2/4")
    return int(part) - 1, int(parts)


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

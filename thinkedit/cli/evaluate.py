"""`thinkedit evaluate` and `thinkedit rollout`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from thinkedit.cli import options

_BENCHMARKS = "Benchmarks"


def evaluate(
    config: options.InferenceConfig = None,
    overrides: options.Overrides = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="NAME=PATH",
            help="A model folder to evaluate under this name; may be repeated.",
            show_default=False,
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark",
            "-b",
            metavar="NAME",
            help="Measure on a benchmark instead: imgedit, gedit, risebench, krisbench or world.",
            rich_help_panel=_BENCHMARKS,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The benchmark's own files.", rich_help_panel=_BENCHMARKS)
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            metavar="en|cn",
            help="One half of gedit alone; both without it.",
            show_default=False,
            rich_help_panel=_BENCHMARKS,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where results, replies and reports go; what is there is gone on with. "
            "Default: RUN/benchmarks/NAME.",
            show_default=False,
            rich_help_panel=_BENCHMARKS,
        ),
    ] = None,
    thinker: Annotated[
        str | None,
        typer.Option(
            "--thinker",
            metavar="FOLDER|URL|NAME",
            help="Who looks at each edit, as for `thinkedit edit`; without it the editor works alone.",
            show_default=False,
            rich_help_panel=_BENCHMARKS,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The thinker, as its server calls it.", rich_help_panel=_BENCHMARKS),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option("--mode", help="while, before, before+while or expert.", rich_help_panel=_BENCHMARKS),
    ] = None,
    arm: Annotated[
        str | None,
        typer.Option(
            "--arm",
            metavar="NAME",
            help="What to call the results of this editor and thinker.",
            show_default=False,
            rich_help_panel=_BENCHMARKS,
        ),
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(
            "--results",
            metavar="NAME=FOLDER",
            help="Judge results that are there, in the official layout, and make none; may be repeated.",
            show_default=False,
            rich_help_panel=_BENCHMARKS,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="replay:FILE",
            help="Count stored raw replies again: nobody edits or judges.",
            show_default=False,
            rich_help_panel=_BENCHMARKS,
        ),
    ] = None,
    final_only: Annotated[
        bool,
        typer.Option(
            "--final-only", help="Leave the turns before the end unjudged.", rich_help_panel=_BENCHMARKS
        ),
    ] = False,
    ask_again: Annotated[
        bool,
        typer.Option(
            "--ask-again",
            help="Also ask anew where the judge refused or can't be read.",
            rich_help_panel=_BENCHMARKS,
        ),
    ] = False,
) -> None:
    """Play the held-out tasks under the run's own policies, the scripted experts and any others.

    Arms that are there already are kept. Writes RUN/summary.json and RUN/report.html. With --benchmark
    it edits, judges and counts a benchmark instead: docs/benchmarks.md.
    """
    asked: dict[str, Any] = {
        "data": data,
        "language": language,
        "out": out,
        "thinker": thinker,
        "model": model,
        "mode": mode,
        "arm": arm,
        "results": results or [],
        "judge": judge,
        "final_only": final_only,
        "ask_again": ask_again,
    }
    if benchmark is not None:
        from thinkedit.cli.benchmark import Asked, run_benchmark

        if policy:
            raise typer.BadParameter("a benchmark's thinker is --thinker", param_hint="--policy")
        run_benchmark(config, overrides or (), Asked(benchmark=benchmark, **asked))
        return
    if given := [name for name, value in asked.items() if value]:
        raise typer.BadParameter(f"{', '.join(given)}: only with --benchmark NAME")
    from thinkedit.cli import stages
    from thinkedit.configs.load import load_config
    from thinkedit.errors import ConfigError

    loaded = load_config(config or "demo", overrides or ())
    run = stages.open_run(loaded)
    arms = stages.standard_arms(loaded, run)
    for item in policy or ():
        name, _, path = item.partition("=")
        if not name or not Path(path).is_dir():
            raise ConfigError(f"--policy takes NAME=PATH with a model folder, got {item!r}")
        arms[name] = Path(path)
    stages.evaluate(loaded, run, arms)
    stages.conclude(run)


def rollout(
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A model folder, naive_expert or aware_expert.")
    ],
    config: options.Config = "demo",
    overrides: options.Overrides = None,
    episodes: Annotated[int, typer.Option("--episodes", "-n", min=1, help="How many to play.")] = 3,
) -> None:
    """Play a few held-out episodes and print every critique and verdict."""
    import asyncio
    import tempfile
    from contextlib import closing

    from thinkedit.actors.store import TrajectoryStore
    from thinkedit.cli.show import print_episode
    from thinkedit.configs.load import load_config
    from thinkedit.envs.build import Parts
    from thinkedit.envs.world.experts import EXPERTS
    from thinkedit.errors import UnknownName
    from thinkedit.evals.arms import Thinkers, play_arm

    loaded = load_config(config, [*(overrides or ()), f"eval.tasks={episodes}"])
    if policy not in EXPERTS and not Path(policy).is_dir():
        raise UnknownName("policy", policy, [*EXPERTS, "a model folder"])
    arm, path = (policy, None) if policy in EXPERTS else ("policy", Path(policy))

    async def play_into(parts: Parts, folder: Path) -> None:
        async with Thinkers(parts) as thinkers:
            await play_arm(parts, arm, await thinkers.get(arm, path), folder)

    with closing(Parts.from_config(loaded)) as parts, tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / arm
        asyncio.run(play_into(parts, store))
        for episode in sorted(TrajectoryStore(store).read(), key=lambda episode: episode.seed):
            print_episode(episode)

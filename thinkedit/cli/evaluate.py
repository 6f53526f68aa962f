"""`thinkedit evaluate` and `thinkedit rollout`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thinkedit.cli import options


def evaluate(
    config: options.Config = "demo",
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
) -> None:
    """Play the held-out tasks under the run's own policies, the scripted experts and any others.

    Arms that are there already are kept. Writes RUN/summary.json and RUN/report.html.
    """
    from thinkedit.cli import stages
    from thinkedit.configs.load import load_config
    from thinkedit.errors import ConfigError

    loaded = load_config(config, overrides or ())
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
    parts = Parts.from_config(loaded)
    arm, path = (policy, None) if policy in EXPERTS else ("policy", Path(policy))

    async def play_into(folder: Path) -> None:
        async with Thinkers(parts) as thinkers:
            await play_arm(parts, arm, await thinkers.get(arm, path), folder)

    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / arm
        asyncio.run(play_into(store))
        for episode in sorted(TrajectoryStore(store).read(), key=lambda episode: episode.seed):
            print_episode(episode)

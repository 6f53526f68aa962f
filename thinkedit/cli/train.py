"""`thinkedit sft` and `thinkedit train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thinkedit.cli import options

Start = Annotated[
    str | None,
    typer.Option("--policy", metavar="PATH", help="Model folder to start from.", show_default=False),
]


def sft(
    config: options.Config = "demo",
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
) -> None:
    """Warm start: learn the reply format and good practice from a scripted expert's episodes.

    Leaves the model in RUN/sft/policy. A finished one is kept, an interrupted one resumed.
    """
    from thinkedit.cli import stages
    from thinkedit.configs.load import load_config

    loaded = load_config(config, overrides or (), require_plugins=not dry_run)
    if dry_run:
        stages.print_plan(loaded)
        return
    run = stages.open_run(loaded)
    typer.echo(stages.warm_start(loaded, run))


def train(
    config: options.Config = "demo",
    overrides: options.Overrides = None,
    policy: Start = None,
    dry_run: options.DryRun = False,
) -> None:
    """GRPO: replies are sampled, really edited and really judged; the learner follows the reward.

    Starts from --policy, or from RUN/sft/policy. Leaves the model in RUN/grpo/policy; an
    interrupted run resumes from its last checkpoint.
    """
    from thinkedit.cli import stages
    from thinkedit.configs.load import load_config
    from thinkedit.errors import ConfigError
    from thinkedit.evals.run import RunFolder
    from thinkedit.learner.verl_config import refuse_impossible

    loaded = load_config(config, overrides or (), require_plugins=not dry_run)
    if dry_run:
        stages.print_plan(loaded)
        return
    refuse_impossible(loaded)
    start = Path(policy) if policy else stages.sft_policy(RunFolder(Path(loaded.run_dir)))
    if not start.exists():  # told before the folder is taken, which other settings could not use then
        raise ConfigError(
            f"no policy to start from at {start}: run `thinkedit sft` with this config first, or name "
            "a model folder with --policy"
        )
    typer.echo(stages.reinforce(loaded, stages.open_run(loaded), start))

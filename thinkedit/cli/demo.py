"""`thinkedit demo`: the whole loop on this machine."""

from __future__ import annotations

import typer

from thinkedit.cli import options


def demo(
    config: options.Config = "demo",
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
) -> None:
    """Train a small thinker from a warm start to GRPO, evaluate it, and write the report.

    Needs no GPU, key or download. What is finished in the run folder is kept, so calling it again
    resumes an interrupted run or says what exists.
    """
    from thinkedit.cli import stages
    from thinkedit.configs.load import load_config
    from thinkedit.learner.verl_config import refuse_impossible

    loaded = load_config(config, overrides or (), require_plugins=not dry_run)
    if dry_run:
        stages.print_plan(loaded)
        return
    refuse_impossible(loaded)  # told before SFT has taken its time
    run = stages.open_run(loaded)
    if run.report.exists():
        stages.console.print(
            f"Already finished: {run.root}. Delete the folder, or set name=..., to run again."
        )
        stages.print_summary(run)
        return
    start = stages.warm_start(loaded, run)
    stages.reinforce(loaded, run, start)
    stages.evaluate(loaded, run, stages.standard_arms(loaded, run))
    stages.conclude(run)
    typer.echo(run.report)

"""`thinkedit report` and `thinkedit evidence`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", file_okay=False, exists=True)]


def report(
    run: Run,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Count a run's figures again and write its summary.json and report.html.

    Reads the run folder only; nothing is edited, judged or sampled.
    """
    from thinkedit.evals.report import build_report
    from thinkedit.evals.run import RunFolder, write_json
    from thinkedit.evals.summary import summarise_run

    folder = RunFolder(run)
    summary = summarise_run(folder)
    write_json(folder.summary, summary)
    typer.echo(build_report(folder, summary))
    if open_it:
        typer.launch(folder.report.resolve().as_uri())


def evidence(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, one per seed.", file_okay=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The page; its figure goes beside it.")] = Path(
        "docs/evidence.md"
    ),
) -> None:
    """Write the figures of several finished runs (seeds) as one page with a figure."""
    from thinkedit.evals.evidence import write_evidence

    for path in write_evidence(runs, out):
        typer.echo(path)

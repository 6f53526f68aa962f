"""`thinkedit study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thinkedit.cli import options

QUICK = (
    "name=study-quick",
    "sft.demonstrations=96",
    "sft.epochs=1",
    "grpo.steps=1",
    "grpo.tasks_per_step=2",
    "grpo.group_size=2",
    "eval.tasks=8",
    "eval.bootstrap=200",
)


def study(
    overrides: options.Overrides = None,
    config: options.Config = "study",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of everything, with seeds 0, 1, ...")] = 3,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="QUESTION", help="Run what these questions need; may be given again."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="As little as shows that it runs; minutes.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the tables as Markdown to this file too.")
    ] = None,
) -> None:
    """Run the paper's ablations in the built-in world, and write one page.

    Base, SFT and RL; thinking before, while or both; number of edits; strength of the expert; reward
    profiles; one-step against multi-turn RL; another editor. What is finished in the run folder is
    kept, so a stopped study goes on where it was; the page has every question that is.
    """
    from thinkedit.cli import stages, studying
    from thinkedit.configs.load import load_config
    from thinkedit.errors import UnknownName
    from thinkedit.evals.study import page
    from thinkedit.evals.study.figures import answers
    from thinkedit.evals.study.plan import QUESTIONS

    known = [question.key for question in QUESTIONS]
    for name in only or ():
        if name not in known:
            raise UnknownName("question", name, known)
    asked = only or known
    chosen = [*(QUICK if quick else ()), *(overrides or ())]
    root = Path(load_config(config, chosen).run_dir)
    played = [studying.run_seed(config, chosen, root / f"seed-{seed}", seed, asked) for seed in range(seeds)]
    counted = answers(played, resamples=load_config(config, chosen).eval.bootstrap)
    about = page.About(seeds=range(seeds), quick=quick)
    page.build_page(counted, about, root / "study.html")
    if markdown is not None:
        markdown.write_text(page.build_markdown(counted, about), encoding="utf-8")
    stages.console.print(f"{sum(len(answer.lines) for answer in counted)} rows of {len(counted)} questions")
    typer.echo(root / "study.html")

"""`thinkedit evaluate --benchmark`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from thinkedit.configs.schema import Config
    from thinkedit.envs.build import Parts
    from thinkedit.evals.benchmarks.arms import Arm
    from thinkedit.evals.benchmarks.base import Benchmark
    from thinkedit.evals.benchmarks.results import Results
    from thinkedit.evals.benchmarks.run import Progress

console = Console(stderr=True, soft_wrap=True, highlight=False)
_REPLAY = "replay:"


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options; see its help."""

    benchmark: str
    data: Path | None
    out: Path | None
    arm: str | None
    results: Sequence[str]
    judge: str | None
    final_only: bool
    ask_again: bool


def run_benchmark(config: str, overrides: Sequence[str], asked: Asked) -> None:
    """Edit what is missing, judge what is not judged, count, report."""
    from thinkedit.configs.load import load_config
    from thinkedit.envs.build import Parts
    from thinkedit.evals.benchmarks import open_benchmark
    from thinkedit.evals.benchmarks.run import locked

    loaded = load_config(config, overrides)
    parts = Parts.from_config(loaded)
    try:
        benchmark = open_benchmark(asked.benchmark, asked.data, loaded, parts.tasks)
        out = asked.out or Path(loaded.run_dir) / "benchmarks" / benchmark.name
        with locked(out):
            results, folder = _evaluate(parts, benchmark, out, asked)
    finally:
        parts.close()
    show(results, folder)


def _evaluate(parts: Parts, benchmark: Benchmark, out: Path, asked: Asked) -> tuple[Results, Path]:
    from thinkedit.errors import ConfigError
    from thinkedit.evals.benchmarks.arms import stored_arms
    from thinkedit.evals.benchmarks.graders import grader_for
    from thinkedit.evals.benchmarks.run import judge_arms, replay

    config, options = parts.config, _interval_options(parts.config)
    if asked.judge is not None:
        if not asked.judge.startswith(_REPLAY):
            raise ConfigError(
                f"--judge takes {_REPLAY}FILE, got {asked.judge!r}; other judges are chosen by judge=NAME"
            )
        file = Path(asked.judge.removeprefix(_REPLAY))
        return replay(benchmark, file, stored_arms(out / "arms"), out, **options)
    grader = grader_for(parts.judge, benchmark)  # before an edit is paid for
    foreign = [_foreign(text) for text in asked.results]
    with _bar() as progress:
        failures: dict[str, dict[str, str]] = {}
        if not foreign:
            name, failed = asyncio.run(_make(parts, benchmark, out, asked, progress))
            failures[name] = failed
        return asyncio.run(
            judge_arms(
                benchmark,
                [*stored_arms(out / "arms"), *foreign],
                grader,
                out,
                only_final=asked.final_only,
                again=asked.ask_again,
                concurrency=config.rollout.concurrency,
                failures=failures,
                progress=progress,
                **options,
            )
        )


async def _make(
    parts: Parts, benchmark: Benchmark, out: Path, asked: Asked, progress: Progress
) -> tuple[str, dict[str, str]]:
    """Make the results of the configured editor and thinker; the arm's name, and what failed."""
    from thinkedit.envs.services import Services
    from thinkedit.evals.benchmarks.arms import open_arm
    from thinkedit.evals.benchmarks.generate import generate, plain_editor
    from thinkedit.evals.benchmarks.run import turn_names

    config, editor = parts.config, parts.editor
    services = Services(editor, parts.judge, config.editor.timeout_s, config.judge.timeout_s)
    about: dict[str, Any] = {
        "benchmark": benchmark.name,
        "editor": {"name": editor.name, "revision": editor.revision, "settings": dict(editor.settings())},
        "seed": config.eval.seed,
    }
    name = asked.arm or "single_edit"
    arm = open_arm(out / "arms", name, about, turn_names(1))
    total = sum(not item.unsupported for item in benchmark.items)
    failed = await generate(
        benchmark,
        arm,
        plain_editor(services, config.eval.seed),
        concurrency=config.rollout.concurrency,
        progress=lambda done: progress(f"edit {name}", done, total),
    )
    return name, failed


def _interval_options(config: Config) -> dict[str, int]:
    return {"resamples": config.eval.bootstrap, "seed": config.eval.seed}


def _foreign(text: str) -> Arm:
    from thinkedit.errors import ConfigError
    from thinkedit.evals.benchmarks.arms import FINAL, Arm

    name, _, folder = text.partition("=")
    if not name or not Path(folder).is_dir():
        raise ConfigError(f"--results takes NAME=FOLDER with a folder that is there, got {text!r}")
    return Arm(name, Path(folder), [FINAL], foreign=True)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A bar for each thing that goes on."""
    from thinkedit.cli.progress import bars

    with bars() as shown:
        tasks: dict[str, Any] = {}

        def progress(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = shown.add_task(label, total=total, latest="")
            shown.update(tasks[label], completed=done, total=total)

        yield progress


def show(results: Results, folder: Path) -> None:
    """The headlines, what is missing from them, and where everything lies."""
    table = Table(title=f"{results.benchmark.title}, judged by {results.judge}", title_justify="left")
    for column in ("", "table", "headline", "expected", "generated", "judged", "parse failed"):
        table.add_column(column, justify="left" if column in ("", "table") else "right")
    from thinkedit.evals.benchmarks.tables import shown_figure

    for arm in results.arms:
        for found in arm.tables[arm.turns[-1]]:
            headline, coverage = found.headline(), found.coverage
            if headline is None or not coverage.n_expected:
                continue
            counts = (
                coverage.n_expected,
                coverage.n_generated,
                coverage.n_judged,
                coverage.n_parse_failed,
            )
            text = shown_figure(headline, found.table.digits)
            table.add_row(arm.name, found.table.key, text, *map(str, counts))
    console.print(table)
    for note in results.notes:
        console.print(f"  {note}", style="yellow")
    if not results.complete:
        console.print(
            "  Coverage is not full, so headlines are withheld: run the same command again to edit and "
            "judge what is missing (--ask-again for unreadable replies).",
            style="yellow",
        )
    for arm in results.arms:
        for item, why in list(arm.failures.items())[:3]:
            console.print(f"  {arm.name}, {item}: {why}", style="yellow")
    console.print(f"  {folder}/report.html")

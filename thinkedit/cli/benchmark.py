"""`thinkedit evaluate --benchmark`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
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
    from thinkedit.evals.benchmarks.generate import Maker
    from thinkedit.evals.benchmarks.results import Results
    from thinkedit.evals.benchmarks.run import Progress

console = Console(stderr=True, soft_wrap=True, highlight=False)
_REPLAY = "replay:"


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options; see its help."""

    benchmark: str
    data: Path | None
    language: str | None
    out: Path | None
    arm: str | None
    results: Sequence[str]
    thinker: str | None
    model: str | None
    mode: str | None
    judge: str | None
    final_only: bool
    ask_again: bool


def run_benchmark(config: str | None, overrides: Sequence[str], asked: Asked) -> None:
    """Edit what is missing, judge what is not judged, count, report; or only count stored replies."""
    from thinkedit import plugins
    from thinkedit.cli import options
    from thinkedit.envs.build import Parts
    from thinkedit.errors import ConfigError
    from thinkedit.evals.benchmarks import open_benchmark
    from thinkedit.evals.benchmarks.arms import stored_arms
    from thinkedit.evals.benchmarks.run import locked, replay

    loaded = options.for_inference(
        config,
        overrides,
        thinker=asked.thinker,
        model=asked.model,
        mode=asked.mode,
        accept_at=None,
        more={},
    )
    if loaded.inference.size is not None:
        raise ConfigError("inference.size: a benchmark's pictures are edited as they are; leave it null")
    if asked.judge is not None and not asked.judge.startswith(_REPLAY):
        raise ConfigError(
            f"--judge takes {_REPLAY}FILE, got {asked.judge!r}; other judges are chosen by judge=NAME"
        )
    unused = ("thinker", "model", "mode", "arm", "results", "final_only", "ask_again")
    if asked.judge is not None and (given := [name for name in unused if getattr(asked, name)]):
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ConfigError(f"{names}: nothing is edited or judged with --judge {_REPLAY}FILE; leave it out")
    tasks = plugins.build("tasks", loaded.tasks.name, loaded.tasks.options)
    benchmark = open_benchmark(asked.benchmark, asked.data, loaded, tasks, language=asked.language)
    out = asked.out or Path(loaded.run_dir) / "benchmarks" / benchmark.name
    if asked.judge is not None:  # editor and judge aren't built: they may want a key or a server
        file = Path(asked.judge.removeprefix(_REPLAY))
        with locked(out):
            arms = stored_arms(out / "arms")
            results, folder = replay(benchmark, file, arms, out, **_interval_options(loaded))
    else:
        with closing(Parts.from_config(loaded)) as parts, locked(out):
            results, folder = _evaluate(parts, benchmark, out, asked)
    show(results, folder)


def _evaluate(parts: Parts, benchmark: Benchmark, out: Path, asked: Asked) -> tuple[Results, Path]:
    from thinkedit.evals.benchmarks.arms import stored_arms
    from thinkedit.evals.benchmarks.graders import grader_for
    from thinkedit.evals.benchmarks.run import judge_arms

    config = parts.config
    grader = grader_for(parts.judge, benchmark)  # before an edit is paid for
    foreign = _foreign(benchmark, asked.results, taken={arm.name for arm in stored_arms(out / "arms")})
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
                **_interval_options(config),
            )
        )


async def _make(
    parts: Parts, benchmark: Benchmark, out: Path, asked: Asked, progress: Progress
) -> tuple[str, dict[str, str]]:
    """Make the results of the configured editor and thinker; the arm's name, and what failed."""
    from thinkedit.evals.benchmarks.arms import open_arm
    from thinkedit.evals.benchmarks.generate import generate
    from thinkedit.evals.benchmarks.run import turn_names

    total = sum(not item.unsupported for item in benchmark.items)
    async with _maker(parts, asked) as (name, about, edits, make):
        about = {"benchmark": benchmark.name, "seed": parts.config.eval.seed, **about}
        arm = open_arm(out / "arms", asked.arm or name, about, turn_names(edits))
        failed = await generate(
            benchmark,
            arm,
            make,
            concurrency=parts.config.rollout.concurrency,
            progress=lambda done: progress(f"edit {arm.name}", done, total),
        )
    return arm.name, failed


@asynccontextmanager
async def _maker(parts: Parts, asked: Asked) -> AsyncIterator[tuple[str, dict[str, Any], int, Maker]]:
    """What makes a result, with its usual name, who it is, and how many edits it makes at most."""
    from thinkedit.actors.inference import open_thinking_editor
    from thinkedit.envs.services import Services
    from thinkedit.evals.benchmarks.generate import plain_editor, thinking_editor

    config, editor = parts.config, parts.editor
    about: dict[str, Any] = {
        "editor": {"name": editor.name, "revision": editor.revision, "settings": dict(editor.settings())}
    }
    if asked.thinker is None:
        services = Services(editor, parts.judge, config.editor.timeout_s, config.judge.timeout_s)
        yield "single_edit", about, 1, plain_editor(services, config.eval.seed)
        return
    async with open_thinking_editor(config) as thinking:
        options = thinking.options(seed=config.eval.seed)
        about["thinker"] = dict(thinking.thinker.for_mode(options.mode).about())
        about["options"] = {
            "mode": options.mode.value,
            "select": options.select.value,
            "turns": options.turns,
        }
        name = config.inference.thinker + ("" if options.mode == "while" else f"_{options.mode.value}")
        edits = 1 + options.turns if options.mode.critiques else 1
        yield name, about, edits, thinking_editor(thinking, options)


def _interval_options(config: Config) -> dict[str, int]:
    return {"resamples": config.eval.bootstrap, "seed": config.eval.seed}


def _foreign(benchmark: Benchmark, given: Sequence[str], *, taken: set[str]) -> list[Arm]:
    """The folders of `--results`.

    Raises:
        ConfigError: not NAME=FOLDER, a name that is taken, or a folder without a single result.
    """
    from thinkedit.errors import ConfigError
    from thinkedit.evals.benchmarks.arms import FINAL, Arm

    arms = []
    for text in given:
        name, _, folder = text.partition("=")
        if not name or not folder or not Path(folder).is_dir():
            raise ConfigError(f"--results takes NAME=FOLDER with a folder that is there, got {text!r}")
        if name in taken:
            raise ConfigError(f"--results: there are results called {name!r} already; choose another name")
        taken.add(name)
        arm = Arm(name, Path(folder), [FINAL], foreign=True)
        if not any(arm.picture(benchmark, item, FINAL) for item in benchmark.items):
            example = benchmark.result(Path(folder), benchmark.items[0])
            raise ConfigError(f"--results: no result lies in {folder}; one would be {example}")
        arms.append(arm)
    return arms


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
    table = Table(title=f"{results.benchmark.title}, judged by {results.judged_by}", title_justify="left")
    from thinkedit.evals.benchmarks.tables import COUNTS, counts_of, shown_figure

    for column in ("", "table", "headline", COUNTS):
        table.add_column(column, justify="left" if column in ("", "table") else "right")
    for arm in results.arms:
        for found in arm.tables[arm.turns[-1]]:
            headline, coverage = found.headline(), found.coverage
            if headline is None or not coverage.n_expected:
                continue
            text = shown_figure(headline, found.table.digits)
            table.add_row(arm.name, found.table.key, text, counts_of(coverage))
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

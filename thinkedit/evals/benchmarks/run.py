"""An evaluation from its folder on: judging what lies there, counting, and writing the reports.

arms/<arm>/…                         results (`arms.py`)
judges/<judge>/replies.sqlite        raw replies, by key
judges/<judge>/replies.jsonl         the same as a file, for `--judge replay:FILE`
judges/<judge>/summary.json          every figure with its coverage; figures.csv, items.csv,
                                     tables.md and tables.tex are made of it; report.html shows all
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from thinkedit.actors.images import write_atomically
from thinkedit.errors import ConfigError, DataError
from thinkedit.evals.benchmarks.arms import FINAL, Arm
from thinkedit.evals.benchmarks.base import Benchmark
from thinkedit.evals.benchmarks.graders import Grader
from thinkedit.evals.benchmarks.judging import judge
from thinkedit.evals.benchmarks.page import build_page
from thinkedit.evals.benchmarks.replay import read_replies, write_replies
from thinkedit.evals.benchmarks.results import ArmResults, Results, count, notes_on
from thinkedit.evals.benchmarks.store import ReplyStore, Row
from thinkedit.evals.benchmarks.tables import figures_csv, items_csv, latex, markdown
from thinkedit.evals.run import write_json

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""


def turn_names(edits: int) -> list[str]:
    """The turns of a run with so many edits at most."""
    return [str(turn) for turn in range(1, edits + 1)] + [FINAL]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder for this process alone, until it ends in whatever way.

    Raises:
        ConfigError: another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another evaluation is at work in {folder}; wait for it or choose another --out"
            ) from error
        yield
    finally:
        os.close(handle)


async def judge_arms(
    benchmark: Benchmark,
    arms: Sequence[Arm],
    grader: Grader,
    out: Path,
    *,
    only_final: bool,
    again: bool,
    concurrency: int,
    failures: Mapping[str, Mapping[str, str]],
    resamples: int,
    seed: int,
    progress: Progress,
) -> tuple[Results, Path]:
    """Judge what is not judged yet, count everything, and write the reports.

    Args:
        only_final: leave the turns before the end out.
        failures: why results are missing, by arm and item.

    Returns:
        The results, and the folder of this judge.
    """
    folder = out / "judges" / grader.id
    found: list[ArmResults] = []
    every: list[Row] = []
    with ReplyStore(folder / "replies.sqlite") as store:
        for arm in arms:
            turns = [FINAL] if only_final else list(arm.turns)

            def tell(done: int, total: int, name: str = arm.name) -> None:
                progress(f"judge {name}", done, total)

            rows = await judge(
                benchmark,
                arm,
                grader,
                store,
                turns=turns,
                concurrency=concurrency,
                again=again,
                progress=tell,
            )
            every += rows
            found.append(
                count(
                    benchmark,
                    arm.name,
                    rows,
                    turns,
                    about=arm.about(),
                    stops=_stops(benchmark, arm),
                    failures=failures.get(arm.name, {}),
                    resamples=resamples,
                    seed=seed,
                )
            )
    write_replies(folder / "replies.jsonl", every)
    results = Results(
        benchmark=benchmark,
        judge=grader.label,
        judge_id=grader.id,
        arms=found,
        notes=notes_on(benchmark, found),
        models=_models(every),
    )
    write_reports(results, arms, folder)
    return results, folder


def replay(
    benchmark: Benchmark, file: Path, arms: Sequence[Arm], out: Path, *, resamples: int, seed: int
) -> tuple[Results, Path]:
    """Count stored replies again. Nobody edits or judges; results are only looked at for the page.

    Raises:
        DataError, UnknownName: see `read_replies`.
    """
    folders = {arm.name: arm for arm in arms}
    found: list[ArmResults] = []
    every: list[Row] = []
    for name, rows in read_replies(file, benchmark).items():
        every += rows
        numbered = sorted({row.turn for row in rows} - {FINAL}, key=_number)
        turns = [*numbered, FINAL] if any(row.turn == FINAL for row in rows) else numbered
        found.append(
            count(
                benchmark,
                name,
                rows,
                turns,
                about=folders[name].about() if name in folders else {},
                stops=_stops(benchmark, folders[name]) if name in folders else {},
                failures={},
                resamples=resamples,
                seed=seed,
            )
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    results = Results(
        benchmark=benchmark,
        judge=f"replies of {file.name}",
        judge_id=f"replay-{digest}",
        arms=found,
        notes=notes_on(benchmark, found),
        models=_models(every),
    )
    folder = out / "judges" / results.judge_id
    folder.mkdir(parents=True, exist_ok=True)
    write_reports(results, [folders[arm.name] for arm in found if arm.name in folders], folder)
    return results, folder


def write_reports(results: Results, arms: Sequence[Arm], folder: Path) -> None:
    """summary.json, figures.csv, items.csv, tables.md, tables.tex and report.html."""
    write_json(folder / "summary.json", results.as_json())
    texts = {
        "figures.csv": figures_csv(results),
        "items.csv": items_csv(results),
        "tables.md": markdown(results),
        "tables.tex": latex(results),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text.encode(), sync=False)
    build_page(results, arms, folder)


def _stops(benchmark: Benchmark, arm: Arm) -> dict[str, int]:
    records = (arm.record(item) for item in benchmark.items)
    return dict(Counter(record["stop"] for record in records if record))


def _models(rows: Iterable[Row]) -> list[str]:
    return sorted({row.model for row in rows if row.model})


def _number(turn: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,5}", turn):
        raise DataError(f"turn {turn!r}: turns are 1, 2, … and {FINAL}")
    return int(turn)

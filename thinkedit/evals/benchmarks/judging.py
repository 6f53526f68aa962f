"""Asks the judge what it has not been asked yet about an arm's results, and keeps each raw reply at once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thinkedit.envs.images import read_rgb
from thinkedit.errors import DataError, ServiceError
from thinkedit.evals.benchmarks.arms import Arm
from thinkedit.evals.benchmarks.base import Ask, Benchmark, Item
from thinkedit.evals.benchmarks.files import encodable
from thinkedit.evals.benchmarks.graders import Grader
from thinkedit.evals.benchmarks.pool import each
from thinkedit.evals.benchmarks.store import MISSING, UNANSWERED, UNSUPPORTED, ReplyStore, Row

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    """One question about one picture, which may be the result of several turns."""

    item: Item
    ask: Ask
    picture: Path
    seen: str
    turns: list[str]


async def judge(
    benchmark: Benchmark,
    arm: Arm,
    grader: Grader,
    store: ReplyStore,
    *,
    turns: Sequence[str],
    concurrency: int,
    again: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Everything the judge said of an arm's results, asking for what is missing.

    The same picture is asked about once, in however many turns it stands. A reply that was given for
    another picture or question is asked for anew.

    Args:
        turns: which turns to judge.
        again: also ask anew where the judge refused or what it said can't be read.
        progress: called with the number of questions answered, and of all.

    Returns:
        A row for each question about each result that is there, unanswered and damaged ones included;
        and one for each item and turn that the arm's editor can't make.

    Raises:
        DataError: a picture of the benchmark itself can't be read.
    """
    rows, jobs = _sorted_out(benchmark, arm, turns, store, again)
    done = 0
    progress(done, len(jobs))

    async def one(job: _Job) -> None:
        nonlocal done
        rows.extend(await _answer(job, arm.name, grader, store))
        done += 1
        progress(done, len(jobs))

    await each(jobs, one, workers=concurrency)
    return rows


async def _answer(job: _Job, arm: str, grader: Grader, store: ReplyStore) -> list[Row]:
    row = Row(arm=arm, item=job.item.id, turn="", metric=job.ask.metric, seen=job.seen)
    try:
        edited = await asyncio.to_thread(read_rgb, job.picture)
    except DataError as error:  # one bad file among a thousand
        log.warning("%s counts as missing: %s", job.item.id, error)
        return [replace(row, turn=turn, failure=f"{MISSING}: {error}") for turn in job.turns]
    try:
        said = await grader.ask(job.item, job.ask, edited)
    except ServiceError as error:
        log.info("%s, %s: %s", job.item.id, job.ask.metric, error)
        why = encodable(f"{UNANSWERED}: {error}")
        return [replace(row, turn=turn, failure=why) for turn in job.turns]
    reply = None if said.reply is None else encodable(said.reply)
    row = replace(row, reply=reply, failure=encodable(said.failure), model=said.model)
    found = [replace(row, turn=turn, calls=said.calls if k == 0 else 0) for k, turn in enumerate(job.turns)]
    store.put(found)
    return found


def _sorted_out(
    benchmark: Benchmark, arm: Arm, turns: Sequence[str], store: ReplyStore, again: bool
) -> tuple[list[Row], list[_Job]]:
    """The rows that are there and hold, and what is still to be asked."""
    known = store.rows(arm.name)
    rows: list[Row] = []
    copies: list[Row] = []
    jobs: list[_Job] = []
    for item in benchmark.items:
        pictures = {turn: path for turn in turns if (path := arm.picture(benchmark, item, turn))}
        hashes = {turn: hashlib.sha256(path.read_bytes()).hexdigest() for turn, path in pictures.items()}
        if item.unsupported and not arm.foreign:
            why = f"{UNSUPPORTED}: {item.unsupported}"
            metric = benchmark.asks(item)[0].metric
            rows += [Row(arm=arm.name, item=item.id, turn=t, metric=metric, failure=why) for t in turns]
            continue
        for ask in benchmark.asks(item):
            seen = {turn: _seen(item, ask, digest) for turn, digest in hashes.items()}
            kept = [row for turn in arm.turns if (row := known.get((item.id, turn, ask.metric)))]
            held = {row.seen: row for row in kept if not (again and _fruitless(row, ask))}
            asked: dict[str, _Job] = {}
            for turn, key in seen.items():
                row = known.get((item.id, turn, ask.metric))
                if row is not None and row.seen == key and key in held:
                    rows.append(row)
                elif key in held:
                    copies.append(replace(held[key], turn=turn, calls=0))
                else:
                    job = asked.setdefault(key, _Job(item, ask, pictures[turn], key, []))
                    job.turns.append(turn)
            jobs += asked.values()
    store.put(copies)
    return rows + copies, jobs


def _seen(item: Item, ask: Ask, result: str) -> str:
    """Names a question about a result, by what decides on its answer but the judge."""
    parts = (result, item.source_key, item.reference_key, ask.system, ask.text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _fruitless(row: Row, ask: Ask) -> bool:
    if row.reply is None:
        return True
    try:
        ask.read(row.reply)
    except ValueError:
        return True
    return False

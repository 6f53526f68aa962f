"""Has a judge grade the edits of raw trajectories that have no scores yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from thinkedit.data.formats.lines import read_lines
from thinkedit.data.formats.trajectories import (
    Located,
    Score,
    Step,
    Trajectory,
    encode,
    files_of,
    read_trajectories,
)
from thinkedit.data.journal import Journal
from thinkedit.data.streak import Streak
from thinkedit.envs.images import read_rgb
from thinkedit.envs.services import JudgeRequest, Services
from thinkedit.errors import ConfigError, DataError, JudgeRefused, ServiceError
from thinkedit.types import RGB, Verdict


@dataclass(slots=True)
class Scored:
    """before: trajectories that earlier runs had done. failed: edits that nobody could grade."""

    before: int = 0
    done: int = 0
    graded: int = 0
    failed: int = 0


async def score_trajectories(
    source: Path,
    scored: Path,
    services: Services,
    *,
    concurrency: int = 32,
    failures: int = 20,
    progress: Callable[[Scored, int], None] = lambda scored, whole: None,
) -> Scored:
    """Copy trajectories to the file `scored`, every edit with a score, in the order of the source.

    A killed run goes on where it was. An edit that can't be graded keeps a null; so do those after it,
    since the trajectory ends there.

    Args:
        services: whose judge is asked; the editor is not.
        progress: called after each trajectory, with the whole number of them.
        failures: trajectories in a row with an edit that the judge failed at, after which it stops.
            A refusal of the judge is no failure of its service.

    Raises:
        ServiceDown: so many failed; none of them is written down, so the next run tries them again.
        ConfigError: `scored` holds other trajectories than `source`.
        DataError: a trajectory or picture that can't be read.
        JournalInUse: another process writes to `scored`.
    """
    found, streak = Scored(), Streak(failures)
    whole = sum(1 for file in files_of(source) for _ in read_lines(file))
    with Journal(scored) as journal:
        todo = _remaining(source, scored, found)
        running: deque[asyncio.Task[_Graded]] = deque()
        held: list[_Graded] = []  # not written yet: those of a streak of failures

        def start(more: int) -> None:
            for located in islice(todo, more):
                running.append(asyncio.ensure_future(_grade(located, services)))

        try:
            start(concurrency)
            while running:
                graded = await running.popleft()
                start(1)
                held.append(graded)
                if graded.failure:
                    streak.failed(graded.failure)
                elif graded.asked:
                    streak.succeeded()
                if not streak.running:
                    _write(journal, held, found)
                progress(found, whole)
            _write(journal, held, found)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    return found


@dataclass(frozen=True, slots=True)
class _Graded:
    """asked: verdicts that came. refused, failure: why the last one did not, if so."""

    trajectory: Trajectory
    asked: int
    refused: bool
    failure: str


def _write(journal: Journal, held: list[_Graded], found: Scored) -> None:
    for graded in held:
        journal.append(encode(graded.trajectory))
        found.done += 1
        found.graded += graded.asked
        found.failed += graded.refused or bool(graded.failure)
    held.clear()


def _remaining(source: Path, scored: Path, found: Scored) -> Iterator[Located]:
    """The trajectories after those that `scored` holds already."""
    before, every = read_trajectories(scored), read_trajectories(source)
    for old in before:
        new = next(every, None)
        if new is None or new.trajectory.trajectory_id != old.trajectory.trajectory_id:
            raise ConfigError(
                f"{old.line.where} is another trajectory than the next one of {source}: "
                "choose another folder, or delete the file"
            )
        found.before += 1
    return every


async def _grade(located: Located, services: Services) -> _Graded:
    """A trajectory with every edit graded, up to the first that can't be; image paths made absolute."""
    trajectory, folder = located.trajectory, located.line.file.parent.absolute()
    source: RGB | None = None
    steps: list[Step] = []
    asked, refused, failure = 0, False, ""
    for number, step in enumerate(trajectory.steps):
        score = step.score
        if score is None and not refused and not failure:
            if source is None:
                source = _picture(folder / trajectory.source_image, located, "source_image")
            edited = _picture(folder / step.image, located, f"steps[{number}].image")
            answer = await services.call(JudgeRequest(source, edited, trajectory.instruction))
            if isinstance(answer, Verdict):
                score, asked = _score(answer), asked + 1
            elif isinstance(answer, JudgeRefused):
                refused = True
            else:
                assert isinstance(answer, ServiceError), (
                    "a judge request is answered by a verdict or an error"
                )
                failure = str(answer)
        steps.append(msgspec.structs.replace(step, image=str(folder / step.image), score=score))
    whole = msgspec.structs.replace(
        trajectory, source_image=str(folder / trajectory.source_image), steps=tuple(steps)
    )
    return _Graded(whole, asked, refused, failure)


def _score(verdict: Verdict) -> Score:
    return Score(
        semantic=verdict.scores.semantic,
        quality=verdict.scores.quality,
        judge_id=verdict.judge_id,
        prompt_hash=verdict.prompt_hash,
        notes=dict(verdict.notes),
    )


def _picture(path: Path, located: Located, field: str) -> RGB:
    try:
        return read_rgb(path)
    except DataError as error:
        raise DataError(f"{located.line.where}: {field}: {error}") from error

"""Has a judge grade the edits of raw trajectories that have no scores yet."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from thinkedit.data.formats.lines import read_lines
from thinkedit.data.formats.trajectories import (
    Located,
    NamedJudge,
    Score,
    Step,
    Trajectory,
    encode,
    files_of,
    read_files,
    read_trajectories,
)
from thinkedit.data.journal import Journal
from thinkedit.data.streak import Streak
from thinkedit.envs.images import read_rgb
from thinkedit.envs.services import JudgeRequest, Services
from thinkedit.errors import (
    ConfigError,
    DataError,
    JudgeMismatch,
    JudgeRefused,
    ServiceError,
    ThinkEditError,
)
from thinkedit.types import RGB, JudgeIdentity, Verdict


class Ungraded(ThinkEditError):
    """The judge failed at trajectories; they are not written down, and it may answer another time."""


@dataclass(slots=True)
class Scored:
    """Trajectories, and verdicts, by what became of them.

    before: trajectories that earlier runs had done. done: by this one. graded: verdicts in them.
    refused: of them those that end early, since the judge would not grade an edit.
    failed: trajectories that are not written, since the judge failed at them, by the kind of failure.
    """

    before: int = 0
    done: int = 0
    graded: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)


async def score_trajectories(
    source: Path,
    scored: Path,
    services: Services,
    *,
    concurrency: int = 32,
    failures: int = 20,
    without_failed: bool = False,
    progress: Callable[[Scored, int], None] = lambda scored, whole: None,
) -> Scored:
    """Copy trajectories to the file `scored`, every edit with a score.

    A killed run goes on where it was. An edit that the judge refuses to grade keeps a null, for good; so
    do those after it, since the trajectory ends there. A trajectory at which the judge failed (no answer,
    none that can be read) is not written, so that the next run tries it again.

    Args:
        source: a file, or a folder; in which `scored` is not read if it lies there too.
        services: whose judge is asked; the editor is not.
        progress: called after each trajectory, with the whole number of them.
        failures: trajectories in a row that the judge failed at, after which it stops.
            A refusal of the judge is no failure of its service.
        without_failed: leave them out of `scored` without an error.

    Raises:
        Ungraded: all were tried, and the judge failed at some.
        ServiceDown: so many in a row failed.
        JudgeMismatch: `scored`, or a trajectory that is graded in part, has scores of another judge.
        ConfigError: `scored` holds other trajectories than `source`, or some without a score.
        DataError: a trajectory or picture that can't be read.
        JournalInUse: another process writes to `scored`.
    """
    files = _inputs(source, scored)  # before the journal makes a file that would be one of them
    found, streak, judge = Scored(), Streak(failures), _OneJudge(services.judge.identities())
    whole = sum(1 for file in files for _ in read_lines(file))
    with Journal(scored) as journal:
        done = _done(files, scored, judge)
        found.before = len(done)
        todo = (item for item in read_files(files) if item.trajectory.trajectory_id not in done)
        running: deque[asyncio.Task[_Graded | _Failed]] = deque()

        def start(more: int) -> None:
            for located in islice(todo, more):
                running.append(asyncio.ensure_future(_grade(located, services, judge)))

        try:
            start(concurrency)
            while running:
                graded = await running.popleft()
                start(1)
                if isinstance(graded, _Failed):
                    found.failed[graded.kind] += 1
                    streak.failed(graded.detail)
                else:
                    journal.append(encode(graded.trajectory))
                    found.done += 1
                    found.graded += graded.asked
                    found.refused += graded.refused
                    if graded.asked:
                        streak.succeeded()
                progress(found, whole)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    if found.failed and not without_failed:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in found.failed.most_common())
        raise Ungraded(
            f"the judge failed at {found.failed.total():,} trajectories ({kinds}), {scored} is without them: "
            "the same command tries them again; --without-failed builds without them"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Graded:
    """asked: verdicts that came. refused: whether the judge would not give the last one."""

    trajectory: Trajectory
    asked: int
    refused: bool


@dataclass(frozen=True, slots=True)
class _Failed:
    kind: str
    detail: str


class _OneJudge:
    """Sees to it that the scores that are given here, and those beside them, are one judge's.

    Args:
        known: every identity that its verdicts may bear; None: the first one seen is the judge's.
    """

    def __init__(self, known: frozenset[JudgeIdentity] | None) -> None:
        self._known: frozenset[NamedJudge] | None = known

    def check(self, judge: NamedJudge, where: str) -> None:
        """
        Raises:
            JudgeMismatch: another judge's.
        """
        if self._known is None:
            self._known = frozenset({judge})
        if judge not in self._known:
            mine = " or ".join(sorted(map(_named, self._known)))
            raise JudgeMismatch(
                f"{where} has a score of {_named(judge)}, and the judge here is {mine}: configure that "
                "judge, or choose another --out folder and take away the scores that are to be given anew"
            )


def _named(judge: NamedJudge) -> str:
    name, prompt = judge
    return f"{name} ({prompt})" if name else "nobody (no judge_id)"


def _inputs(source: Path, scored: Path) -> list[Path]:
    """The files to read: `scored` is none of them, even if it lies in their folder."""
    files = [file for file in files_of(source) if file.resolve() != scored.resolve()]
    if not files:
        raise DataError(f"{source}: nothing to grade but {scored}, which the scores are written to")
    return files


def _done(files: Sequence[Path], scored: Path, judge: _OneJudge) -> frozenset[str]:
    """Ids of the trajectories that `scored` holds already."""
    before: dict[str, tuple[str, NamedJudge | None]] = {}
    for old in read_trajectories(scored):
        gap = next((step for step in old.trajectory.steps if step.score is None), None)
        if gap is not None and gap.refused is None:
            raise ConfigError(
                f"{old.line.where} has an edit without a score and no word of who refused it, so the judge "
                "may have failed there: delete the file to have all graded anew, or choose another folder"
            )
        before[old.trajectory.trajectory_id] = old.line.where, old.trajectory.judge
    done = frozenset(before)
    for new in read_files(files) if before else ():
        where, graded_by = before.pop(new.trajectory.trajectory_id, ("", None))
        given_here = any(step.score is None for step in new.trajectory.steps)
        if given_here and graded_by is not None:
            judge.check(graded_by, where)
    for where, _ in before.values():
        raise ConfigError(
            f"{where} is another trajectory than those to grade: choose another folder, or delete the file"
        )
    return done


async def _grade(located: Located, services: Services, judge: _OneJudge) -> _Graded | _Failed:
    """A trajectory with every edit graded, up to the first that is refused; image paths made absolute."""
    trajectory, folder = located.trajectory, located.line.file.parent.absolute()
    graded_by = trajectory.judge
    if graded_by is not None and any(step.score is None for step in trajectory.steps):
        judge.check(graded_by, located.line.where)  # before a verdict is paid that can't stand beside it
    source: RGB | None = None
    steps: list[Step] = []
    asked, refused = 0, False
    for number, step in enumerate(trajectory.steps):
        score, reason = step.score, step.refused
        if score is None and not refused:
            if source is None:
                source = _picture(folder / trajectory.source_image, located, "source_image")
            edited = _picture(folder / step.image, located, f"steps[{number}].image")
            answer = await services.call(JudgeRequest(source, edited, trajectory.instruction))
            if isinstance(answer, JudgeRefused):
                refused, reason = True, str(answer)
            elif isinstance(answer, ServiceError):
                return _Failed(type(answer).__name__, str(answer))
            else:
                assert isinstance(answer, Verdict), "a judge request is answered by a verdict or an error"
                score, reason, asked = _score(answer), None, asked + 1
                judge.check(score.judge, located.line.where)
                graded_by = graded_by or score.judge
                if score.judge != graded_by:  # of an ensemble, a member that failed is missing
                    both = f"{_named(graded_by)} and {_named(score.judge)}"
                    return _Failed(JudgeMismatch.__name__, f"one trajectory's edits were graded by {both}")
        steps.append(
            msgspec.structs.replace(step, image=str(folder / step.image), score=score, refused=reason)
        )
    whole = msgspec.structs.replace(
        trajectory, source_image=str(folder / trajectory.source_image), steps=tuple(steps)
    )
    return _Graded(whole, asked, refused)


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

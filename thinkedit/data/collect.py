"""Collects raw trajectories: an expert steers an editor over tasks, and everything is kept.

    OUT/collection.json              who edits and thinks; going on with others is refused
    OUT/trajectories-1-of-1.jsonl    one line per finished task, in the order in which they finished
    OUT/failures-1-of-1.log          tasks that failed and why, and replies that nobody could read;
                                     the next run tries them again
    OUT/images/ab/ab12….png          each picture once
    OUT/.shards                      into how many parts the runs under way share the tasks out

A task, known by its uid, is in the file or it is not: a killed run goes on where it was, no task is there
twice, also when the tasks' file has grown in the meantime.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from thinkedit.actors.images import ImageFolder, write_atomically
from thinkedit.actors.inference import (
    Attempt,
    EditResult,
    Options,
    Stop,
    ThinkerError,
    ThinkingEditor,
    Thought,
)
from thinkedit.data import pictures
from thinkedit.data.formats.lines import read_lines
from thinkedit.data.formats.records import Editor
from thinkedit.data.formats.trajectories import (
    ExpertNote,
    Remark,
    Step,
    Trajectory,
    encode,
    parse,
)
from thinkedit.data.journal import Journal, SharedCount
from thinkedit.data.streak import Streak
from thinkedit.envs.tasks import TaskSource
from thinkedit.errors import ConfigError, DataError, ServiceError
from thinkedit.types import RGB, Observation, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which tasks a process collects.

    count: of the split, from its first; None: all of a finite one.
    shard, shards: this process takes each `shards`-th task, from number `shard` on.
    edits: per task at most; every one of them is shown to the expert, the last one too.
    failures: in a row, after which the run stops.
    """

    split: str = "train"
    count: int | None = None
    shard: int = 0
    shards: int = 1
    edits: int = 5
    concurrency: int = 32
    failures: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.shard < self.shards:
            raise ConfigError(f"shard {self.shard + 1} of {self.shards}: there is no such one")
        if self.edits < 2:
            raise ConfigError(f"edits={self.edits}: a trajectory needs a second edit, so at least 2")

    def indices(self, tasks: TaskSource) -> range:
        """Of this process.

        Raises:
            ConfigError: the split is endless and there is no count.
        """
        size = tasks.size(self.split)
        if size is None and self.count is None:
            raise ConfigError(f"split {self.split!r} has no end: say how many tasks to collect")
        whole = min(n for n in (size, self.count) if n is not None)
        return range(self.shard, whole, self.shards)


@dataclass(slots=True)
class Collected:
    """Tasks by what became of them in this run. before: had been collected by earlier ones."""

    before: int = 0
    done: int = 0
    failed: int = 0


async def collect(
    thinking: ThinkingEditor,
    tasks: TaskSource,
    out: Path,
    plan: Plan,
    options: Options,
    *,
    progress: Callable[[Collected, int], None] = lambda collected, whole: None,
) -> Collected:
    """Play the tasks that are not collected yet, `plan.concurrency` at a time.

    Args:
        options: of each run; its seed is the collection's, from which each task's own follows.
        progress: called after each task, with the whole number of tasks.

    Raises:
        ServiceDown: `plan.failures` tasks in a row failed.
        JournalInUse: another process collects the same shard, or with another number of shards.
        ConfigError: the folder holds a collection by others, or of other tasks.
        DataError: the tasks' file or a line of the folder can't be read; what was collected is kept.
    """
    indices = plan.indices(tasks)
    maker = _same_collection(out, thinking, tasks, plan, options)
    name = f"{plan.shard + 1}-of-{plan.shards}"
    found, streak = Collected(), Streak(plan.failures)
    with (
        SharedCount(out / ".shards", plan.shards),
        Journal(out / f"trajectories-{name}.jsonl") as journal,
        Journal(out / f"failures-{name}.log") as log,
    ):
        collector = _Collector(thinking, tasks, out, plan, options, maker)
        done = collected_before(out, plan.split)
        todo = [index for index in indices if tasks.uid(plan.split, index) not in done]
        found.before = len(indices) - len(todo)
        waiting = iter(todo)  # shared: each worker takes the next one that nobody has

        async def work() -> None:
            for index in waiting:
                result = await collector.play(index)
                if isinstance(result, Trajectory):
                    journal.append(encode(result))
                    found.done += 1
                    streak.succeeded()
                else:
                    told = {"split": plan.split, "index": index, "task_uid": tasks.uid(plan.split, index)}
                    log.append(
                        msgspec.json.encode({**told, "failure": result.detail, "unread": result.unread})
                    )
                    found.failed += 1
                    if result.of_service:
                        streak.failed(result.detail)
                progress(found, len(indices))

        progress(found, len(indices))
        workers = [asyncio.ensure_future(work()) for _ in range(min(plan.concurrency, len(indices)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return found


def _same_collection(
    out: Path, thinking: ThinkingEditor, tasks: TaskSource, plan: Plan, options: Options
) -> str:
    """Write down what the collection is, or compare with what was written.

    Returns:
        A short hash of who makes it and how, for ids that no other collection of these tasks gives.
    """
    editor, thinker = thinking.services.editor, thinking.thinker.for_mode(options.mode)
    config = thinking.config.tasks
    mine = {
        "tasks": {"name": config.name, "options": dict(config.options)},
        "editor": {"name": editor.name, "revision": editor.revision, "settings": dict(editor.settings())},
        "expert": dict(thinker.about()),
        "mode": str(options.mode),
        "edits": plan.edits,
        "seed": options.seed,
        "size": thinking.config.inference.size,
    }
    path = out / "collection.json"
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_atomically(path, msgspec.json.format(msgspec.json.encode(mine), indent=1), sync=True)
    theirs = msgspec.json.decode(path.read_bytes())
    differing = sorted(name for name in mine if theirs.get(name) != _plain(mine[name]))
    if differing:
        raise ConfigError(
            f"{out} holds a collection with another {' and another '.join(differing)} (collection.json): "
            "choose another folder"
        )
    makers = msgspec.json.encode({key: mine[key] for key in mine if key != "tasks"}, order="sorted")
    return hashlib.blake2b(makers, digest_size=4).hexdigest()


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    return msgspec.json.decode(msgspec.json.encode(value))


def collected_before(out: Path, split: str) -> set[str]:
    """Uids of the split's tasks of which a file in the folder, of any shard, holds the trajectory.

    A last line without an end is not there yet: its shard writes it, or was killed and will cut it off.

    Raises:
        DataError: any other line that is no trajectory of a task; names file, line and field.
    """
    done = set()
    for file in sorted(out.glob("trajectories-*.jsonl")):
        for line in read_lines(file):
            if not line.data.endswith(b"\n"):
                continue
            trajectory = parse(line)
            if trajectory.task_uid is None:
                raise DataError(
                    f"{line.where}: task_uid: this required field is missing; to go on with a collection "
                    "takes knowing its tasks: choose another folder"
                )
            if trajectory.split == split:
                done.add(trajectory.task_uid)
    return done


@dataclass(frozen=True, slots=True)
class _Failure:
    """of_service: editor or expert failed, and not the task itself. unread: the expert's replies, as they
    came, where none could be read."""

    detail: str
    of_service: bool
    unread: Sequence[str] = ()


class _Collector:
    """Plays one task and writes its trajectory down.

    Args:
        maker: in the trajectories' ids.
    """

    def __init__(
        self,
        thinking: ThinkingEditor,
        tasks: TaskSource,
        out: Path,
        plan: Plan,
        options: Options,
        maker: str,
    ) -> None:
        self._thinking, self._tasks, self._plan, self._options = thinking, tasks, plan, options
        self._thinker = thinking.thinker.for_mode(options.mode)
        # Synced: a line of the journal, which is, must not name a picture that a power cut took.
        self._out, self._images, self._maker = out, ImageFolder(out / "images", sync=True), maker

    async def play(self, index: int) -> Trajectory | _Failure:
        """The trajectory, or what failed."""
        try:
            task = self._tasks.task(self._plan.split, index)
        except DataError as error:  # a broken picture, mostly: the others can be played
            return _Failure(f"{type(error).__name__}: {error}", of_service=False)
        seed = seed_of(task, self._options.seed)
        options = replace(self._options, seed=seed, turns=self._plan.edits - 1)
        try:
            result = await self._thinking.edit(task.source, task.instruction, options)
            if result.stop.failed:
                return _Failure(f"{result.stop}: {result.detail}", of_service=True, unread=result.unread)
            last = result.attempts[-1]
            thought = last.thought or await self._look_at_last(result)
        except (ServiceError, ThinkerError) as error:
            unread = error.unread if isinstance(error, ThinkerError) else ()
            return _Failure(f"{type(error).__name__}: {error}", of_service=True, unread=unread)
        attempts = (*result.attempts[:-1], replace(last, thought=thought))
        return self._trajectory(task, index, result, attempts)

    async def _look_at_last(self, result: EditResult) -> Thought:
        """The turn limit ended the run: whether its last edit is accepted is still worth knowing."""
        last = result.attempts[-1]
        seen = Observation(
            source=result.source,
            edited=last.image,
            instruction=result.instruction,
            prompt=last.prompt,
            turn=last.index,
            turns_left=0,
        )
        return await self._thinker.critique(seen, seed=result.options.seed)

    def _trajectory(
        self, task: Task, index: int, result: EditResult, attempts: Sequence[Attempt]
    ) -> Trajectory:
        editor, thinker = dict(result.about["editor"]), dict(result.about["thinker"])
        model = thinker.pop("model", None)
        source, source_sha256 = self._keep(result.source)
        return Trajectory(
            trajectory_id=f"{task.uid}@{editor['name']}-{self._maker}#{result.options.seed}",
            task_uid=task.uid,
            split=self._plan.split,
            index=index,
            task_type=task.task_type,
            instruction=result.instruction,
            source_image=source,
            source_sha256=source_sha256,
            source_dataset=task.reference.get("source_dataset"),
            editor=Editor(
                name=editor["name"],
                revision=editor["revision"],
                config=editor["settings"],
                seed=result.options.seed,
            ),
            expert=ExpertNote(name=thinker.pop("name", model or "expert"), model=model, settings=thinker),
            steps=tuple(self._step(attempt) for attempt in attempts),
        )

    def _step(self, attempt: Attempt) -> Step:
        image, sha256 = self._keep(attempt.image)
        thought = attempt.thought
        assert thought is not None, "every edit of a finished run was looked at"
        return Step(
            prompt=attempt.prompt,
            image=image,
            image_sha256=sha256,
            score=None,
            expert=Remark(
                reason=thought.reason,
                next_prompt=thought.prompt,
                stop=thought.end is Stop.ACCEPTED,
                raw=thought.reply,
                unread=thought.unread,
                model=thought.model,
                latency_s=round(thought.seconds, 3),
            ),
            latency_s=round(attempt.seconds, 3),
        )

    def _keep(self, image: RGB) -> tuple[str, str]:
        """Path relative to the collection, and hash of the file."""
        path = self._images.path(self._images.add(image))
        return os.path.relpath(path, self._out), pictures.sha256_of(str(path))


def seed_of(task: Task, seed: int) -> int:
    """A task's own seed, of editor and expert: from the collection's and the task's name alone."""
    digest = hashlib.blake2b(f"{seed}/{task.uid}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1

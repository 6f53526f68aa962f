"""The built-in world's held-out tasks as a benchmark: all of it without a model, a key or a download."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import sqrt

from thinkedit.envs.tasks import TaskSource
from thinkedit.envs.world.instructions import OPERATIONS
from thinkedit.evals.benchmarks.base import Ask, Benchmark, Column, Item, Marks, Table, mean_of, of_kind
from thinkedit.types import RGB, SCORE_MAX, Scores, Task


class World(Benchmark):
    name = "world"
    title = "World"
    prefixes = ("images",)
    by_model = False

    def __init__(self, tasks: TaskSource, count: int) -> None:
        """The first `count` tasks of the split "test"."""
        found = (tasks.task("test", index) for index in range(count))
        self.items = [
            Item(
                id=task.uid,
                kind=task.task_type,
                instruction=task.instruction,
                path=f"{task.task_type}/{task.uid}",
                sources=[_loader(task)],
                facts=task.reference,
            )
            for task in found
        ]

    def asks(self, item: Item) -> Sequence[Ask]:
        return [
            Ask(
                metric="verdict",
                text=item.instruction,
                read=read_verdict,
                pictures=lambda edited: (item.source(), edited),
            )
        ]

    def tables(self) -> Sequence[Table]:
        columns = [
            Column(name="semantic", part=mean_of("semantic")),
            Column(name="quality", part=mean_of("quality")),
            Column(name="O", part=_overall, headline=True),
            *(Column(name=operation, part=_overall, keep=of_kind(operation)) for operation in OPERATIONS),
        ]
        return [Table(key="world", title="World, held-out tasks", columns=columns)]


def write_verdict(scores: Scores) -> str:
    """A judge's scores as the raw reply that `read_verdict` reads."""
    return json.dumps({"semantic": scores.semantic, "quality": scores.quality})


def read_verdict(text: str) -> dict[str, float]:
    """
    Raises:
        ValueError: not an object with two numbers in [0, 10].
    """
    found = json.loads(text)
    marks: dict[str, float] = {}
    for axis in ("semantic", "quality"):
        value = found.get(axis) if isinstance(found, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SCORE_MAX:
            raise ValueError(f"{axis}: {value!r} is no number in [0, 10]")
        marks[axis] = float(value)
    return marks


def _overall(item: Item, marks: Marks) -> tuple[float, float]:
    return sqrt(marks["semantic"] * marks["quality"]), 1.0


def _loader(task: Task) -> Callable[[], RGB]:
    return lambda: task.source

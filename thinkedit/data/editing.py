"""Edits of the world with their exact results, to train and to measure an editor on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Literal, get_args

from thinkedit.actors.small_diffusion.samples import EMPTY, EditSample, Trial
from thinkedit.data.looking import LEARNED_SPLITS
from thinkedit.envs.world.experts import NaiveExpert
from thinkedit.envs.world.instructions import (
    EXTREMES,
    KEEP_CLAUSES,
    OPERATION_OF,
    STYLE_CLAUSES,
    VERBS,
    Goal,
    Instruction,
    parse_instruction,
    phrase,
    refer,
)
from thinkedit.envs.world.scene import CELLS, COLOURS, SHAPES, SIZES, Scene
from thinkedit.envs.world.sprites import read_scene, render
from thinkedit.envs.world.tasks import WorldTasks, WorldTasksConfig, split_of
from thinkedit.types import Task

Wording = Literal["as given", "named", "placed", "placed, keep"]
WORDINGS: tuple[Wording, ...] = get_args(Wording)
"""What an editor is told of a task: the task's own instruction; the object by colour and shape; by colour,
shape and place; the same with a keep clause."""


def editing(seed: int, start: int = 0) -> Iterator[EditSample]:
    """Endless samples from number `start` on, of scenes from the splits "sft" and "train" only.

    A sample is a function of the seed and its number. Three in four prompts are worded by the naive
    expert, as captions are that real editors learn from: they name things, sometimes with the place.
    Their keep and style clauses ask for nothing more. The others are instructions as tasks have them,
    so indirect references are rarer here than there. Where several objects are right targets, the
    sample shows one of them, drawn evenly.
    """
    tasks, expert = WorldTasks(WorldTasksConfig(seed=seed)), NaiveExpert()
    return (_sample(tasks, expert, random.Random(f"editing/{seed}/{number}")) for number in count(start))


def _sample(tasks: WorldTasks, expert: NaiveExpert, rng: random.Random) -> EditSample:
    while True:
        task = tasks.task(rng.choice(LEARNED_SPLITS), rng.randrange(2**31))
        scene, goal = _goal(task, rng)
        target = _edited(scene, goal)
        if split_of(target) in LEARNED_SPLITS:
            worded = rng.random() < 0.75
            return EditSample(
                source=task.source,
                prompt=expert.prompt(goal, task.instruction, rng) if worded else task.instruction,
                target=render(target),
                cells=tuple(_look(target, cell) for cell in range(len(CELLS))),
            )


def trials(number: int, wording: Wording, *, split: str = "test") -> list[Trial]:
    """The first `number` held-out tasks in a wording; verbs and keep clauses are drawn evenly."""
    rng = random.Random(f"editing/trials/{split}")
    tasks = WorldTasks()
    found = []
    for index in range(number):
        task = tasks.task(split, index)
        found.append(
            Trial(
                source=task.source,
                instruction=task.instruction,
                prompt=_worded(task, wording, rng),
                operation=task.task_type,
                reference="none" if task.task_type == "add" else str(task.reference["kind"]),
            )
        )
    return found


def _worded(task: Task, wording: Wording, rng: random.Random) -> str:
    _, goal = _goal(task, rng)
    verb, clause = rng.choice(VERBS[goal.operation]), rng.choice(KEEP_CLAUSES)
    if wording == "as given":
        return task.instruction
    reference = refer(goal.target, place=wording != "named") if goal.target else ""
    prompt = phrase(goal, verb, reference)
    return f"{prompt}, {clause}" if wording == "placed, keep" else prompt


def vocabulary() -> Iterator[str]:
    """Texts that hold every word of the world's instructions and prompts."""
    yield from (*CELLS, *COLOURS, *SHAPES, *SIZES, *EXTREMES, *OPERATION_OF, *KEEP_CLAUSES, *STYLE_CLAUSES)
    yield "please the odd one out a an shape object at in into to with for by"


def _goal(task: Task, rng: random.Random) -> tuple[Scene, Goal]:
    """What a task shows, and one of its right outcomes."""
    scene = read_scene(task.source).scene
    instruction = parse_instruction(task.instruction)
    assert isinstance(instruction, Instruction), "the world understands its own tasks"
    return scene, rng.choice(instruction.goals(scene))


def _edited(scene: Scene, goal: Goal) -> Scene:
    kept = [item for item in scene.items if item != goal.target]
    return Scene.of(kept + ([goal.wanted] if goal.wanted else []))


def _look(scene: Scene, cell: int) -> tuple[int, int, int]:
    item = scene.at(cell)
    if item is None:
        return (EMPTY, EMPTY, EMPTY)
    return (SIZES.index(item.size), COLOURS.index(item.colour), SHAPES.index(item.shape))

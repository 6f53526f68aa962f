"""Canary pairs of the built-in world: what was asked for, and what went wrong in a known way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from thinkedit.envs.world.instructions import Goal, parse_instruction
from thinkedit.envs.world.scene import COLOURS, NOISES, Item, Scene, exchange
from thinkedit.envs.world.sprites import read_scene, render
from thinkedit.envs.world.tasks import WorldTasks
from thinkedit.types import Canary

KINDS = ("unchanged", "wrong object", "bystander harmed", "smudged", "noisy")


def world_pairs() -> Iterator[Canary]:
    """The same pairs in each process, the kinds in turn; never a task of training (split `val`)."""
    tasks = WorldTasks()
    kinds = 0
    for index in count():
        task = tasks.task("val", index)
        instruction, source = parse_instruction(task.instruction), read_scene(task.source).scene
        assert instruction is not None, "the world understands its own instructions"
        goals = instruction.goals(source)
        if len(goals) > 1:
            continue  # several right answers: "the wrong object" may be one of them
        kind = KINDS[kinds % len(KINDS)]
        right = exchange(source, goals[0].target, goals[0].wanted)
        wrong = _gone_wrong(kind, source, right, goals[0], random.Random(index))
        if wrong is None:
            continue
        kinds += 1
        yield Canary(
            kind=kind,
            source=task.source,
            better=render(right),
            worse=render(wrong),
            instruction=task.instruction,
        )


def _gone_wrong(kind: str, source: Scene, right: Scene, goal: Goal, rng: random.Random) -> Scene | None:
    """None where this can't happen to this goal."""
    bystanders = [item for item in source.items if item != goal.target]
    victim = rng.choice(bystanders) if bystanders else None
    match kind:
        case "unchanged":
            return source
        case "noisy":
            return replace(right, noise=1 + rng.randrange(NOISES))
        case _ if victim is None:
            return None
        case "smudged":
            return exchange(right, victim, replace(victim, smudged=True))
        case "wrong object":
            return exchange(source, victim, _recoloured(victim, rng))
        case _:
            return exchange(right, victim, _recoloured(victim, rng))


def _recoloured(item: Item, rng: random.Random) -> Item:
    return replace(item, colour=rng.choice([colour for colour in COLOURS if colour != item.colour]))

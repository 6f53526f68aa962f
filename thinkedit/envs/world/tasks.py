"""Endless tasks of the world in four splits that can't overlap."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass, field
from typing import ClassVar, cast

from thinkedit.envs.tasks import SPLITS, TaskSource, check_split
from thinkedit.envs.world.instructions import (
    OPERATIONS,
    REFERENCE_KINDS,
    Operation,
    ReferenceKind,
    sample_instruction,
)
from thinkedit.envs.world.scene import Scene, sample_scene
from thinkedit.envs.world.sprites import render
from thinkedit.errors import ConfigError, UnknownName
from thinkedit.types import Task

# Every scene belongs to one split for good, by a hash of what it shows: shares of the hash range.
_SPLIT_SHARES = {"sft": 0.40, "train": 0.40, "val": 0.05, "test": 0.15}

# The rarest default (an odd one out in "val") fits one scene in a few hundred.
_MOST_TRIES = 20_000


@dataclass
class WorldTasksConfig:
    """Tables merge with the defaults; set an entry to 0 to leave it out. Only ratios matter."""

    seed: int = 0
    operations: dict[str, float] = field(default_factory=lambda: dict.fromkeys(OPERATIONS, 1.0))
    references: dict[str, float] = field(
        default_factory=lambda: {"explicit": 0.25, "indirect": 0.45, "ambiguous": 0.15, "odd_one_out": 0.15}
    )  # of tasks that refer to an object; "add" refers to none
    objects: list[int] = field(default_factory=lambda: [2, 3, 3, 4])  # in a scene, drawn evenly


class WorldTasks(TaskSource):
    """Tasks drawn anew for each index, deterministic in (options, split, index).

    `Task.task_type` is the operation; `Task.reference` holds "kind" (the reference kind).
    """

    Config: ClassVar[type[WorldTasksConfig]] = WorldTasksConfig
    name = "world"

    def __init__(self, config: WorldTasksConfig | None = None) -> None:
        """
        Raises:
            UnknownName: an operation or reference kind that the world doesn't have.
            ConfigError: weights that leave nothing to draw, or scenes that can't be drawn.
        """
        self._config = config or WorldTasksConfig()
        self._operations = _weights("operation", self._config.operations, OPERATIONS)
        self._references = _weights("reference kind", self._config.references, REFERENCE_KINDS)
        counts = self._config.objects
        if not counts or min(counts) < 2 or max(counts) > 8:
            raise ConfigError(f"objects: each must be 2 to 8, got {counts}")
        options = json.dumps(asdict(self._config), sort_keys=True)
        self._digest = hashlib.sha256(options.encode()).hexdigest()[:6]

    def task(self, split: str, index: int) -> Task:
        """See `TaskSource.task`.

        Raises:
            ConfigError: no scene that the options allow has such an instruction.
        """
        check_split(split)
        if index < 0:
            raise IndexError(f"tasks count from 0, asked for {index}")
        # a string seeds Random through sha512: the same in every process and Python version
        rng = random.Random(f"{self._config.seed}/{split}/{index}")
        operation = cast(Operation, _pick(self._operations, rng))
        kind = cast(ReferenceKind, "explicit" if operation == "add" else _pick(self._references, rng))
        scene, instruction = self._draw(split, operation, kind, rng)
        return Task(
            uid=self.uid(split, index),
            source=render(scene),
            instruction=instruction,
            task_type=operation,
            split=split,
            reference={"kind": kind},
        )

    def uid(self, split: str, index: int) -> str:
        check_split(split)
        return f"world-{self._digest}-{split}-{index}"

    def _draw(
        self, split: str, operation: Operation, kind: ReferenceKind, rng: random.Random
    ) -> tuple[Scene, str]:
        """A scene of the split that has such an instruction, with it."""
        for _ in range(_MOST_TRIES):
            scene = sample_scene(rng, counts=self._config.objects)
            if split_of(scene) == split:
                instruction = sample_instruction(scene, operation, kind, rng)
                if instruction is not None:
                    return scene, instruction
        raise ConfigError(
            f"no scene with {self._config.objects} objects has an instruction {operation!r} with a reference "
            f"{kind!r}; change objects, or set one of the two to 0"
        )

    def size(self, split: str) -> int | None:
        """None: there is always another task."""
        check_split(split)
        return None


def split_of(scene: Scene) -> str:
    """The one split a scene belongs to, whatever the seed and options; jitter and artefacts don't count."""
    place = int.from_bytes(hashlib.sha256(scene.canonical.encode()).digest()[:6]) / 2**48
    for split in SPLITS:
        if place < _SPLIT_SHARES[split]:
            return split
        place -= _SPLIT_SHARES[split]
    return SPLITS[-1]


def _weights(what: str, table: dict[str, float], known: tuple[str, ...]) -> dict[str, float]:
    """The entries that can be drawn."""
    for name, weight in table.items():
        if name not in known:
            raise UnknownName(what, name, known)
        if weight < 0:
            raise ConfigError(f"{what} {name!r}: a weight can't be negative, got {weight}")
    drawn = {name: weight for name, weight in table.items() if weight > 0}
    if not drawn:
        raise ConfigError(f"every {what} has weight 0: nothing to draw")
    return drawn


def _pick(weights: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]

"""Trajectories for tests, as short as a test can write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from thinkedit.data.formats.trajectories import Remark, Score, Step, Trajectory, encode

Marks = tuple[float, float] | None


def trajectory(
    *marks: Marks,
    uid: str = "t",
    satisfied: bool = True,
    task_type: str = "add",
    instruction: str = "paint the fence white",
    source: str = "source.png",
) -> Trajectory:
    """Edits with these (semantic, quality) marks, each refined until the last, which the expert accepts."""
    prompts = [instruction, *(f"{instruction}, attempt {i}" for i in range(1, len(marks)))]
    steps = []
    for i, mark in enumerate(marks):
        last = i + 1 == len(marks)
        stop = last and satisfied
        following = None if stop else f"{instruction}, attempt {i + 1}"
        steps.append(
            Step(
                prompt=prompts[i],
                image=f"edit{i}.png",
                score=None if mark is None else Score(semantic=mark[0], quality=mark[1]),
                expert=Remark(reason=f"what I see in edit {i}", next_prompt=following, stop=stop),
            )
        )
    return Trajectory(
        trajectory_id=uid,
        task_type=task_type,
        instruction=instruction,
        source_image=source,
        steps=tuple(steps),
    )


def overall(*scores: float, **named: object) -> Trajectory:
    """Edits with these O: both marks are the same, so that sqrt(semantic * quality) is that mark."""
    return trajectory(*((score, score) for score in scores), **named)  # type: ignore[arg-type]


def with_expert(step: Step, **changes: object) -> Step:
    assert step.expert is not None
    return msgspec.structs.replace(step, expert=msgspec.structs.replace(step.expert, **changes))


def picture(path: Path, seed: int) -> Path:
    """A small picture of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, trajectories: Sequence[Trajectory]) -> Path:
    """A trajectory file with its pictures beside it; each source name is a picture of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {t.source_image for t in trajectories} | {s.image for t in trajectories for s in t.steps}
    for seed, name in enumerate(sorted(names)):
        picture(path.parent / name, seed)
    path.write_bytes(b"".join(encode(t) + b"\n" for t in trajectories))
    return path

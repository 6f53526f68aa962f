"""Measures whether `<think>` still describes the pictures: the reading-fidelity metric."""

from __future__ import annotations

import re

from thinkedit.envs.world.scene import Scene, describe
from thinkedit.envs.world.sprites import read_scene
from thinkedit.types import RGB, Episode

_SECTION = re.compile(r"\b(source|edited):([^.]*)\.", re.IGNORECASE)


def reading_fidelity(think: str, source: RGB, edited: RGB) -> float:
    """Share of the two pictures that a think text describes exactly: 0, 0.5 or 1.

    Looks for "source: ... ." and "edited: ... ." (the first of each) as the experts write them.
    The order of the objects doesn't matter; a missing, wrong or added one does.

    Args:
        source, edited: uint8, (96, 96, 3).
    """
    told: dict[str, str] = {}
    for section, text in _SECTION.findall(think):
        told.setdefault(section.lower(), text)
    pictures = {"source": source, "edited": edited}
    right = [_same(told.get(name, ""), read_scene(image).scene) for name, image in pictures.items()]
    return sum(right) / len(right)


def episode_reading_fidelity(episode: Episode) -> float | None:
    """Mean fidelity of an episode's well-formed replies; None when it has none."""
    seen, found = episode.first_edit, []
    for turn in episode.turns:
        if turn.critique is not None and seen is not None:
            found.append(reading_fidelity(turn.critique.think, episode.task.source, seen))
        seen = turn.edited
    return sum(found) / len(found) if found else None


def _same(text: str, scene: Scene) -> bool:
    return _parts(text) == _parts(describe(scene))


def _parts(text: str) -> list[str]:
    return sorted(" ".join(part.casefold().split()) for part in text.split(";"))

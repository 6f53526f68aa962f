"""The world: pictures of coloured shapes whose edits can be graded exactly.

`scene` says what a picture shows, `sprites` draws and reads pictures, `instructions` is the
language of tasks, `tasks` makes them, `judge` grades edits and `experts` hold scripted thinkers.
"""

from thinkedit.envs.world.scene import (
    CELLS,
    COLOURS,
    SHAPES,
    SIZES,
    Item,
    Scene,
    describe,
    sample_scene,
    spoil,
)
from thinkedit.envs.world.sprites import SceneReading, read_scene, render

__all__ = [
    "CELLS",
    "COLOURS",
    "SHAPES",
    "SIZES",
    "Item",
    "Scene",
    "SceneReading",
    "describe",
    "read_scene",
    "render",
    "sample_scene",
    "spoil",
]

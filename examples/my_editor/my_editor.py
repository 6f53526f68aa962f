"""Somebody's own editor of the built-in world: it obeys whoever says please, and few others."""

import random
from dataclasses import dataclass

from thinkedit.envs.editors.base import Editor
from thinkedit.envs.world import Scene, read_scene, render
from thinkedit.envs.world.instructions import find_instruction
from thinkedit.errors import EditorError


@dataclass
class PoliteConfig:
    blunt: float = 0.2  # chance that an order without "please" is carried out


class PoliteEditor(Editor):
    Config = PoliteConfig
    name = "polite"
    inline = True  # an edit takes less time than starting a thread would

    def __init__(self, config):
        self._config = config

    def settings(self):
        return {"blunt": self._config.blunt}

    def edit(self, source, prompt, *, seed):
        reading = read_scene(source)
        if not reading.exact:
            raise EditorError("the polite editor edits pictures of the world only")
        scene, instruction = reading.scene, find_instruction(prompt)
        goals = instruction.goals(scene) if instruction else ()
        luck = random.Random(f"{seed} {prompt!a}").random()
        if goals and ("please" in prompt.casefold() or luck < self._config.blunt):
            kept = [item for item in scene.items if item != goals[0].target]
            scene = Scene.of(kept + ([goals[0].wanted] if goals[0].wanted else []), scene.noise)
        return render(scene)

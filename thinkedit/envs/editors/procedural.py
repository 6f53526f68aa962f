"""An editor of world pictures whose mistakes depend on how it is asked."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from thinkedit.envs.editors.base import Editor
from thinkedit.envs.world.instructions import (
    OPERATION_OF,
    Goal,
    Instruction,
    find_instruction,
    normalise,
)
from thinkedit.envs.world.scene import COLOURS, NOISES, Colour, Scene, exchange
from thinkedit.envs.world.sprites import read_scene, render
from thinkedit.errors import ConfigError, EditorError, UnknownName
from thinkedit.types import RGB


@dataclass
class Quirks:
    """What a procedural editor obeys. All values but `max_words` are chances in [0, 1].

    The defaults are the personality of the demo. Tables merge: a YAML file that sets one
    verb leaves the others as they are.
    """

    verbs: dict[str, float] = field(
        default_factory=lambda: {
            "make": 0.25,
            "paint": 0.97,
            "change": 0.05,
            "remove": 0.05,
            "delete": 0.25,
            "erase": 0.97,
            "replace": 0.25,
            "swap": 0.97,
            "exchange": 0.05,
            "move": 0.05,
            "shift": 0.25,
            "slide": 0.97,
            "add": 0.05,
            "put": 0.25,
            "draw": 0.97,
        }
    )  # that the operation is carried out in full
    half_done: float = 0.40  # that a failed operation is half done instead of left undone
    find_by_name: float = 0.80  # that "the red star" is found ...
    find_by_place: float = 0.98  # ... and "the red star at top-left"
    find_indirect: float = 0.10  # that any other phrase is understood; a misread one means a random object
    keep_clauses: dict[str, float] = field(
        default_factory=lambda: {
            "keep everything else unchanged": 0.45,
            "do not change anything else": 0.65,
            "leave the rest alone": 0.05,
            "only edit this object": 0.35,
        }
    )  # that another object is harmed when the prompt has this clause; the first one written counts
    harm: float = 0.60  # the same without any of them
    smudge: float = 0.50  # that harm is a smudge; otherwise a wrong colour
    max_words: int = 14
    noise: float = 0.60  # that a longer prompt covers the picture with noise


class ProceduralEditor(Editor):
    """Reads the picture, misunderstands the prompt in its own ways, and draws the result.

    The outcome depends on the source picture, the wording (case and spacing aside) and the
    seed, and on nothing else. A prompt it can't read, a reference to an
    object that isn't there and an order that can't be carried out leave the picture as it is.
    """

    Config: ClassVar[type[Quirks]] = Quirks
    name = "procedural"
    revision = "1"
    deterministic = True
    inline = True

    def __init__(self, config: Quirks | None = None) -> None:
        """
        Raises:
            ConfigError: a chance outside [0, 1], a verb that is not of the world.
        """
        self.quirks = config or Quirks()
        _check(self.quirks)
        self._clauses = {normalise(clause): harm for clause, harm in self.quirks.keep_clauses.items()}

    def settings(self) -> Mapping[str, Any]:
        return asdict(self.quirks)

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        """See `Editor.edit`.

        Raises:
            EditorError: the source is not a picture of the world.
        """
        try:
            reading = read_scene(source)
        except ValueError as error:
            raise EditorError(f"the procedural editor edits pictures of the world only: {error}") from error
        if not reading.exact:
            raise EditorError(
                "the procedural editor edits pictures of the world only: this one is no drawing of a scene "
                f"(nearest: {reading.residual:.1f} of 255 away)"
            )
        words = re.findall(r"[\w'-]+", normalise(prompt))
        rng = _chance(source, words, seed)
        noisy = rng.random() < self.quirks.noise and len(words) > self.quirks.max_words
        noise = 1 + rng.randrange(NOISES)
        scene = reading.scene
        instruction = find_instruction(prompt)
        edited = self._obey(scene, instruction, normalise(prompt), rng) if instruction else scene
        return render(replace(edited, noise=noise) if noisy else edited)

    def _obey(self, scene: Scene, instruction: Instruction, text: str, rng: random.Random) -> Scene:
        goal = self._understand(scene, instruction, rng)
        if goal is None:
            return scene
        edited = scene
        if rng.random() < self.quirks.verbs[instruction.verb]:
            edited = exchange(scene, goal.target, goal.wanted)
        elif rng.random() < self.quirks.half_done:
            edited = _half_done(scene, goal, rng)
        if rng.random() < self._harm(text):
            edited = self._harmed(scene, edited, goal, rng)
        return edited

    def _understand(self, scene: Scene, instruction: Instruction, rng: random.Random) -> Goal | None:
        """What the editor thinks it was asked for; None when it sees nothing that it could do."""
        goals = instruction.goals(scene)
        reference = instruction.reference
        if not goals or reference is None:
            return goals[0] if goals else None
        found = self.quirks.find_indirect
        if reference.explicit:
            found = self.quirks.find_by_name if reference.cell is None else self.quirks.find_by_place
        if rng.random() < found:
            return rng.choice(goals)
        return instruction.goal_for(rng.choice(scene.items))

    def _harm(self, text: str) -> float:
        """The chance that a bystander is harmed, by the first keep clause in the prompt."""
        written = [(text.find(clause), harm) for clause, harm in self._clauses.items() if clause in text]
        return min(written)[1] if written else self.quirks.harm

    def _harmed(self, scene: Scene, edited: Scene, goal: Goal, rng: random.Random) -> Scene:
        """`edited` with one object spoilt that the goal leaves alone."""
        bystanders = [item for item in scene.items if item != goal.target and item in edited.items]
        if not bystanders:
            return edited
        victim = rng.choice(bystanders)
        if rng.random() < self.quirks.smudge:
            return exchange(edited, victim, replace(victim, smudged=True))
        return exchange(edited, victim, replace(victim, colour=_other_colour(victim.colour, rng)))


def _chance(source: RGB, words: list[str], seed: int) -> random.Random:
    """All of an edit's luck, from the picture, the words and the seed."""
    digest = hashlib.blake2b(source.tobytes(), digest_size=16)
    digest.update(f"|{seed}|{' '.join(words)}".encode("utf-8", "surrogatepass"))
    return random.Random(digest.digest())


def _half_done(scene: Scene, goal: Goal, rng: random.Random) -> Scene:
    """A wrong colour, a wrong cell, a new colour without the new shape, a smudge instead of a removal."""
    target, wanted = goal.target, goal.wanted
    if wanted is None:
        assert target is not None, "what is removed was there"
        return exchange(scene, target, replace(target, smudged=True))
    match goal.operation:
        case "replace":
            assert target is not None, "what is replaced was there"
            return exchange(scene, target, replace(target, colour=wanted.colour))
        case "move":
            cells = [cell for cell in scene.free if cell != wanted.cell]
            return exchange(scene, target, replace(wanted, cell=rng.choice(cells))) if cells else scene
        case _:
            return exchange(scene, target, replace(wanted, colour=_other_colour(wanted.colour, rng)))


def _other_colour(colour: Colour, rng: random.Random) -> Colour:
    return rng.choice([other for other in COLOURS if other != colour])


def _check(quirks: Quirks) -> None:
    for verb in quirks.verbs:
        if verb not in OPERATION_OF:
            raise UnknownName("verb", verb, OPERATION_OF)
    missing = OPERATION_OF.keys() - quirks.verbs.keys()
    if missing:
        raise ConfigError(f"verbs: no chance given for {', '.join(sorted(missing))}")
    chances = {f"verbs.{verb}": chance for verb, chance in quirks.verbs.items()}
    chances |= {f"keep_clauses.{clause}": chance for clause, chance in quirks.keep_clauses.items()}
    chances |= {name: value for name, value in asdict(quirks).items() if isinstance(value, float)}
    for name, chance in chances.items():
        if not 0 <= chance <= 1:
            raise ConfigError(f"{name} is a chance and must lie in [0, 1], got {chance}")
    if quirks.max_words < 0:
        raise ConfigError(f"max_words can't be negative, got {quirks.max_words}")

"""Questions about pictures of the world, to pretrain a policy that can look and do nothing else.

Nothing here speaks of instructions, edits, scores or replies: a base policy has yet to learn those.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from thinkedit.configs.schema import ProtocolConfig
from thinkedit.envs.protocol import Protocol
from thinkedit.envs.world.experts import corpus
from thinkedit.envs.world.instructions import (
    EXTREMES,
    KEEP_CLAUSES,
    STYLE_CLAUSES,
    VERBS,
    Reference,
    odd_one_out,
    refer,
)
from thinkedit.envs.world.judge import Status
from thinkedit.envs.world.scene import (
    CELLS,
    COLOURS,
    JITTERS,
    SHAPES,
    SIZES,
    Item,
    Scene,
    describe,
    sample_scene,
    spoil,
)
from thinkedit.envs.world.sprites import render
from thinkedit.envs.world.tasks import split_of
from thinkedit.learner.policy.samples import LookSample
from thinkedit.types import Critique, Observation, Scores

DESCRIBE_BOTH = "describe both pictures"
PICTURES = ("first", "second")

LEARNED_SPLITS, HELD_OUT_SPLITS = ("sft", "train"), ("val", "test")
"""By the scenes' own split, as tasks have it: the base has seen no picture that tasks of the others show."""

_KINDS = {kind: 1 + k for k, kind in enumerate(product(SIZES, COLOURS, SHAPES, (False, True)))}
KINDS = 1 + len(_KINDS)
"""What a cell may hold: nothing (0), or an object by size, colour, shape and smudge."""


def looking(seed: int, stream: str = "train") -> Iterator[LookSample]:
    """Endless samples, a function of seed and stream, of scenes from the splits "sft" and "train" only.

    Half of the first questions ask to describe both pictures. The others, and two to four further
    questions, mostly ask to find an object by a phrase, to compare the pictures from that object on,
    or to imagine it otherwise, which take longest to learn; the rest ask what lies in a cell, what
    differs, or for one picture's description.
    """
    rng = random.Random(f"looking/{stream}/{seed}")
    while True:
        scenes = _pair(rng, LEARNED_SPLITS)
        rounds = [both(scenes) if rng.random() < 0.5 else _other(scenes, rng)]
        rounds += [_other(scenes, rng) for _ in range(rng.choice((2, 3, 4)))]
        yield _sample(scenes, rounds)


def reading_test(seed: int = 0) -> Iterator[LookSample]:
    """Samples of held-out scenes that each ask to describe both pictures."""
    rng = random.Random(f"looking/reading/{seed}")
    while True:
        scenes = _pair(rng, HELD_OUT_SPLITS)
        yield _sample(scenes, [both(scenes)])


def grounding_test(seed: int = 0) -> Iterator[LookSample]:
    """Samples of held-out scenes that each ask for the object that a phrase points at."""
    rng = random.Random(f"looking/grounding/{seed}")
    while True:
        scenes = _pair(rng, HELD_OUT_SPLITS)
        yield _sample(scenes, [_find(scenes, rng)])


def comparing_test(seed: int = 0) -> Iterator[LookSample]:
    """Samples of held-out scenes that each ask to compare the pictures, starting from one object."""
    rng = random.Random(f"looking/comparing/{seed}")
    while True:
        scenes = _pair(rng, HELD_OUT_SPLITS)
        yield _sample(scenes, [_compare(scenes, rng)])


def imagining_test(seed: int = 0) -> Iterator[LookSample]:
    """Samples of held-out scenes that each ask what an object would be if it were otherwise."""
    rng = random.Random(f"looking/imagining/{seed}")
    while True:
        scenes = _pair(rng, HELD_OUT_SPLITS)
        yield _sample(scenes, [_imagine(scenes, rng)])


def both(scenes: tuple[Scene, Scene]) -> tuple[str, str]:
    """Question and answer: both pictures in the world's own words."""
    return DESCRIBE_BOTH, f"first: {describe(scenes[0])}. second: {describe(scenes[1])}."


def vocabulary() -> Iterator[str]:
    """Texts that hold every word of the world, of its experts, of the brief protocol and of the questions."""
    yield "system\nuser\nassistant\n"
    yield from (f"{cell} {size} {colour}" for cell, size, colour in product(CELLS, SIZES, COLOURS))
    yield from (f"{a}: {a}, an {a}; the {b}. {b}?" for a, b in product((*COLOURS, *SHAPES, *SIZES), CELLS))
    yield from (f"{verb} it, please {verb} the shape" for verbs in VERBS.values() for verb in verbs)
    yield from (f"the {extreme} object" for extreme in EXTREMES)
    yield from (f"it, {clause}." for clause in (*KEEP_CLAUSES, *STYLE_CLAUSES))
    yield from (f"edit: {status.value}" for status in Status)
    yield "the odd one out if in by for with into! and is not no yes"
    yield "it harm, stray, target"  # nobody says these now, but the base that comes with the package has them
    protocol = Protocol(ProtocolConfig(template="brief"))
    picture = render(Scene(()))
    yield protocol.render_text(
        Observation(source=picture, edited=picture, instruction="it", prompt="it", turn=0, turns_left=1)
    )
    marks = range(11)
    yield from (protocol.format_reply(Critique("it", Scores(mark, mark), "it")) for mark in marks)
    yield from corpus(random.Random("looking/vocabulary"), 400)
    for sample in itertools.islice(looking(0, "vocabulary"), 400):
        for question, answer in sample.rounds:
            yield question
            yield answer


def _sample(scenes: tuple[Scene, Scene], rounds: list[tuple[str, str]]) -> LookSample:
    first, second = scenes
    return LookSample(
        pictures=(render(first), render(second)),
        rounds=tuple(rounds),
        cells=(_cells(first), _cells(second)),
    )


def _cells(scene: Scene) -> tuple[int, ...]:
    kinds = [0] * len(CELLS)
    for item in scene.items:
        kinds[item.cell] = _KINDS[item.size, item.colour, item.shape, item.smudged]
    return tuple(kinds)


def _pair(rng: random.Random, splits: tuple[str, ...]) -> tuple[Scene, Scene]:
    """A scene, seldom spoilt, and one that mostly differs from it in a few things."""
    while True:
        first = second = sample_scene(rng, counts=(1, 2, 3, 3, 4, 4, 5))
        for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
            second = _changed(second, rng)
        if rng.random() < 0.1:
            second = sample_scene(rng, counts=(0, 2, 3, 4, 5))
        second = spoil(second, rng, smudge=0.15, noise=0.25)
        if rng.random() < 0.15:
            first = spoil(first, rng)
        if split_of(first) in splits and split_of(second) in splits:
            return first, second


def _changed(scene: Scene, rng: random.Random) -> Scene:
    """The scene after one random change of one object."""
    items = list(scene.items)
    free = scene.free
    change = rng.choice(("colour", "shape", "both", "size", "cell", "gone", "new"))
    if change == "new" or not items:
        look = Item(
            rng.choice(free),
            rng.choice(SIZES),
            rng.choice(COLOURS),
            rng.choice(SHAPES),
            rng.randrange(JITTERS),
        )
        return Scene.of([*items, look])
    item = items.pop(rng.randrange(len(items)))
    match change:
        case "gone":
            return Scene.of(items)
        case "cell":
            item = replace(item, cell=rng.choice(free))
        case "size":
            item = replace(item, size=rng.choice(SIZES))
        case "colour":
            item = replace(item, colour=rng.choice(COLOURS))
        case "shape":
            item = replace(item, shape=rng.choice(SHAPES))
        case _:
            item = replace(item, colour=rng.choice(COLOURS), shape=rng.choice(SHAPES))
    return Scene.of([*items, item])


def _other(scenes: tuple[Scene, Scene], rng: random.Random) -> tuple[str, str]:
    chance = rng.random()
    if chance < 0.2:
        return _find(scenes, rng)
    if chance < 0.5:
        return _compare(scenes, rng)
    if chance < 0.8:
        return _imagine(scenes, rng)
    if chance < 0.85:
        return _differences(scenes)
    k = rng.randrange(2)
    if chance < 0.95:
        cell = rng.randrange(len(CELLS))
        item = scenes[k].at(cell)
        return f"what is at {CELLS[cell]} in the {PICTURES[k]} picture?", _look(item) if item else "nothing"
    return f"describe the {PICTURES[k]} picture", describe(scenes[k])


def _find(scenes: tuple[Scene, Scene], rng: random.Random) -> tuple[str, str]:
    """Find an object by a phrase; "nothing" when the phrase fits no object."""
    k = rng.randrange(2)
    text, items = _phrase(scenes[k], rng)
    answer = "; ".join(str(item) for item in items) or "nothing"
    return f"find {text} in the {PICTURES[k]} picture", answer


def _compare(scenes: tuple[Scene, Scene], rng: random.Random) -> tuple[str, str]:
    """What the second picture shows in an object's cell, and which other cells' objects differ."""
    first, second = scenes
    text, (item,) = _phrase(first, rng, sole=True)
    there = second.at(item.cell)
    others = [old.name for old in first.items if old != item and not _alike(old, second.at(old.cell))]
    others += [f"new {new.name}" for new in second.items if first.at(new.cell) is None]
    answer = f"{item}, shows {there or 'nothing'}; others: {', '.join(others) or 'none'}"
    return f"compare {text}", answer


def _imagine(scenes: tuple[Scene, Scene], rng: random.Random) -> tuple[str, str]:
    """What an object of the first picture would be with what the question says, or a new one.

    Teaches to take words over from the question, where everything else is read off the pictures.
    """
    colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
    cell = rng.randrange(len(CELLS))
    new = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"
    if rng.random() < 0.3:
        return f"what if {new} is at {CELLS[cell]}?", str(Item(cell, "big", colour, shape))
    text, (item,) = _phrase(scenes[0], rng, sole=True)
    match rng.choice(("colour", "both", "both", "cell")):
        case "colour":
            return f"what if {text} is {colour}?", str(replace(item, colour=colour))
        case "both":
            return f"what if {text} is {new}?", str(replace(item, colour=colour, shape=shape))
        case _:
            return f"what if {text} is at {CELLS[cell]}?", str(replace(item, cell=cell))


def _alike(old: Item, new: Item | None) -> bool:
    return new is not None and new.look == old.look


def _phrase(scene: Scene, rng: random.Random, *, sole: bool = False) -> tuple[str, tuple[Item, ...]]:
    """A referring phrase and the objects it fits, every kind of phrase as often as the others.

    Args:
        sole: only phrases that fit one object.
    """
    kinds = [kind for kind in _phrases(scene, rng).values() if kind]
    fitting = [[found for found in kind if len(found[1]) == 1 or not sole] for kind in kinds]
    return rng.choice(rng.choice([kind for kind in fitting if kind]))


def _phrases(scene: Scene, rng: random.Random) -> dict[str, list[tuple[str, tuple[Item, ...]]]]:
    """Referring phrases by kind, with the objects they fit: mostly one, sometimes several, seldom none."""

    def fitting(text: str, **said: Any) -> tuple[str, tuple[Item, ...]]:
        return text, Reference(**said).matches(scene)

    named, partial = [], []
    for item in scene.items:
        for size, place in product((False, True), repeat=2):
            said = {"size": item.size if size else None, "cell": item.cell if place else None}
            text = refer(item, size=size, place=place)
            named.append(fitting(text, colour=item.colour, shape=item.shape, **said))
        partial += [
            fitting(f"the {item.shape}", shape=item.shape),
            fitting(f"the {item.colour} shape", colour=item.colour),
            fitting(f"the {item.size} shape", size=item.size),
            fitting(f"the {item.size} {item.shape}", size=item.size, shape=item.shape),
        ]
    colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
    named.append(fitting(f"the {colour} {shape}", colour=colour, shape=shape))
    extreme = [fitting(f"the {extreme} shape", extreme=extreme) for extreme in EXTREMES]
    odd = odd_one_out(scene)
    return {
        "named": named,
        "partial": partial,
        "extreme": [found for found in extreme if found[1]],
        "odd": [("the odd one out", odd)] if odd else [],
    }


def _differences(scenes: tuple[Scene, Scene]) -> tuple[str, str]:
    first, second = scenes
    told = []
    for cell, name in enumerate(CELLS):
        old, new = first.at(cell), second.at(cell)
        if old and new and _look(old) != _look(new):
            told.append(f"{name} {_look(old)} became {_look(new)}")
        elif old and not new:
            told.append(f"{name} {_look(old)} gone")
        elif new and not old:
            told.append(f"{name} {_look(new)} new")
    if (first.noise > 0) != (second.noise > 0):
        told.append("noise" if second.noise else "noise gone")
    return "what differs?", "; ".join(told) or "nothing"


def _look(item: Item) -> str:
    return f"{'smudged ' if item.smudged else ''}{item.size} {item.name}"

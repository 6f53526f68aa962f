"""The language of the world: five operations, ways to refer to an object, and their exact meaning.

paint | make | change   REFERENCE [to] COLOUR
erase | delete | remove REFERENCE
swap | exchange | replace REFERENCE for | with a COLOUR SHAPE
slide | shift | move    REFERENCE to CELL
draw | put | add        a COLOUR SHAPE at CELL

REFERENCE = the odd one out
          | the [leftmost | biggest | ...] [SIZE] [COLOUR] SHAPE | shape [at CELL]
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from thinkedit.envs.world.scene import CELLS, COLOURS, SHAPES, SIZES, Colour, Item, Scene, Shape, Size

Operation = Literal["recolour", "remove", "replace", "move", "add"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

ReferenceKind = Literal["explicit", "indirect", "ambiguous", "odd_one_out"]
REFERENCE_KINDS: tuple[ReferenceKind, ...] = get_args(ReferenceKind)
"""explicit: colour and shape. indirect: a phrase that one object fits ("the leftmost shape").
ambiguous: a phrase that several fit, each of them a right target. odd_one_out: the one object
whose shape differs from the shape that all the others share."""

VERBS: Mapping[Operation, tuple[str, ...]] = {
    "recolour": ("make", "paint", "change"),
    "remove": ("remove", "delete", "erase"),
    "replace": ("replace", "swap", "exchange"),
    "move": ("move", "shift", "slide"),
    "add": ("add", "put", "draw"),
}
OPERATION_OF: Mapping[str, Operation] = {
    verb: operation for operation in OPERATIONS for verb in VERBS[operation]
}

KEEP_CLAUSES = (
    "keep everything else unchanged",
    "do not change anything else",
    "leave the rest alone",
    "only edit this object",
)
STYLE_CLAUSES = (
    "high quality",
    "with clean sharp edges and consistent lighting",
    "make it look natural and realistic",
)

Extreme = Literal["leftmost", "rightmost", "topmost", "lowest", "smallest", "biggest"]
EXTREMES: tuple[Extreme, ...] = get_args(Extreme)

# what an extreme makes least
_RANK: Mapping[Extreme, Callable[[Item], int]] = {
    "leftmost": lambda item: item.cell % 3,
    "rightmost": lambda item: -(item.cell % 3),
    "topmost": lambda item: item.cell // 3,
    "lowest": lambda item: -(item.cell // 3),
    "smallest": lambda item: SIZES.index(item.size),
    "biggest": lambda item: -SIZES.index(item.size),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A phrase that points at objects; None means "not said"."""

    odd: bool = False
    extreme: Extreme | None = None
    size: Size | None = None
    colour: Colour | None = None
    shape: Shape | None = None
    cell: int | None = None

    @property
    def explicit(self) -> bool:
        """Whether it names colour and shape."""
        return self.colour is not None and self.shape is not None and self.extreme is None

    def __str__(self) -> str:
        """In words, e.g. "the leftmost shape"."""
        if self.odd:
            return "the odd one out"
        words = ("the", self.extreme, self.size, self.colour, self.shape or "shape")
        place = "" if self.cell is None else f" at {CELLS[self.cell]}"
        return " ".join(word for word in words if word) + place

    def matches(self, scene: Scene) -> tuple[Item, ...]:
        """The objects it fits, in reading order; none when it points at nothing."""
        if self.odd:
            return odd_one_out(scene)
        fitting = [
            item
            for item in scene.items
            if self.size in (None, item.size)
            and self.colour in (None, item.colour)
            and self.shape in (None, item.shape)
            and self.cell in (None, item.cell)
        ]
        if self.extreme and fitting:
            rank = _RANK[self.extreme]
            least = min(rank(item) for item in fitting)
            fitting = [item for item in fitting if rank(item) == least]
        return tuple(fitting)


@dataclass(frozen=True, slots=True)
class Goal:
    """One right outcome.

    target: the object to act on; None for "add".
    wanted: the object that should be there afterwards; None for "remove".
    """

    operation: Operation
    target: Item | None
    wanted: Item | None


@dataclass(frozen=True, slots=True)
class Instruction:
    """An understood instruction. colour, shape, size, cell: of the object to be."""

    operation: Operation
    verb: str
    reference: Reference | None = None
    colour: Colour | None = None
    shape: Shape | None = None
    size: Size | None = None
    cell: int | None = None

    @property
    def outcome(self) -> str:
        """What it says of the object to be, such as "green star" or "blue square at left"."""
        place = None if self.cell is None else f"at {CELLS[self.cell]}"
        return " ".join(word for word in (self.size, self.colour, self.shape, place) if word) or "nothing"

    def goals(self, scene: Scene) -> tuple[Goal, ...]:
        """Every right outcome in this scene, in reading order of the targets; none if it can't be done."""
        if self.cell is not None and self.cell not in scene.free:
            return ()
        if self.reference is None:
            cell, colour, shape = self.cell, self.colour, self.shape
            if cell is None or colour is None or shape is None:
                raise ValueError(f"an instruction to add says what and where, got {self}")
            return (Goal("add", None, Item(cell, self.size or "big", colour, shape)),)
        return tuple(self.goal_for(item) for item in self.reference.matches(scene))

    def goal_for(self, item: Item) -> Goal:
        """The outcome if `item` is what the reference means."""
        if self.operation == "remove":
            return Goal("remove", item, None)
        wanted = Item(
            item.cell if self.cell is None else self.cell,
            self.size or item.size,
            self.colour or item.colour,
            self.shape or item.shape,
            item.jitter,
        )
        return Goal(self.operation, item, wanted)


def odd_one_out(scene: Scene) -> tuple[Item, ...]:
    """The one object whose shape differs from the shape all others (two at least) share, or none."""
    shapes = [item.shape for item in scene.items]
    if len(shapes) < 3 or len(set(shapes)) != 2:
        return ()
    return tuple(item for item in scene.items if shapes.count(item.shape) == 1)


def _words(words: Sequence[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_CELL = rf"(?:the )?(?P<{{}}>{_words(CELLS)})(?![\w-])"
_AT = _CELL.format("at")
_REFERENCE = (
    rf"the (?:(?P<odd>odd one out)|(?:(?P<extreme>{_words(EXTREMES)}) )?(?:(?P<which_size>{_words(SIZES)}) )?"
    rf"(?:(?P<which_colour>{_words(COLOURS)}) )?(?P<which_shape>{_words(SHAPES)}|shape|object)"
    rf"(?: (?:at|in) {_AT})?)"
)
_COLOUR = rf"(?P<colour>{_words(COLOURS)})"
_NEW = rf"an? (?:(?P<size>{_words(SIZES)}) )?{_COLOUR} (?P<shape>{_words(SHAPES)})"
_TO = _CELL.format("cell")
_REST: Mapping[Operation, str] = {
    "recolour": rf"{_REFERENCE} (?:in)?(?:to )?{_COLOUR}",
    "remove": _REFERENCE,
    "replace": rf"{_REFERENCE} (?:with|for|by) {_NEW}",
    "move": rf"{_REFERENCE} (?:in)?to {_TO}",
    "add": rf"{_NEW} (?:at|in|to) {_TO}",
}
_FORMS: Mapping[Operation, re.Pattern[str]] = {
    operation: re.compile(rf"(?<![\w-])(?P<verb>{_words(VERBS[operation])}) {rest}(?![\w-])")
    for operation, rest in _REST.items()
}
_AROUND = re.compile(rf"(?:please )?<>(?:, (?:{_words(KEEP_CLAUSES)}))*[.!]?")


def normalise(text: str) -> str:
    """Case, spacing and American "center" evened out: texts equal after this are worded equally."""
    return " ".join(text.casefold().split()).replace("center", "centre")


def find_instruction(text: str) -> Instruction | None:
    """The first instruction anywhere in a text, as a lenient editor reads it; None if there is none."""
    return _parse(normalise(text), whole=False)


def parse_instruction(text: str) -> Instruction | None:
    """A text that is one instruction and nothing else but "please" and keep clauses; otherwise None."""
    return _parse(normalise(text), whole=True)


def _parse(text: str, *, whole: bool) -> Instruction | None:
    found = [(m.start(), operation, m) for operation, form in _FORMS.items() if (m := form.search(text))]
    if not found:
        return None
    _, operation, match = min(found, key=lambda f: f[0])
    if whole and not _AROUND.fullmatch(text[: match.start()] + "<>" + text[match.end() :]):
        return None
    part = match.groupdict()
    reference = None
    if operation != "add":
        shape = part["which_shape"]
        reference = Reference(
            odd=part["odd"] is not None,
            extreme=cast("Extreme | None", part["extreme"]),
            size=cast("Size | None", part["which_size"]),
            colour=cast("Colour | None", part["which_colour"]),
            shape=None if shape in ("shape", "object") else cast("Shape | None", shape),
            cell=None if part["at"] is None else CELLS.index(part["at"]),
        )
    cell = part.get("cell")
    return Instruction(
        operation,
        part["verb"],
        reference,
        cast("Colour | None", part.get("colour")),
        cast("Shape | None", part.get("shape")),
        cast("Size | None", part.get("size")),
        None if cell is None else CELLS.index(cell),
    )


def refer(item: Item, *, size: bool = False, place: bool = False) -> str:
    """An explicit reference, e.g. "the small red star at top-left"."""
    return str(
        Reference(
            size=item.size if size else None,
            colour=item.colour,
            shape=item.shape,
            cell=item.cell if place else None,
        )
    )


def phrase(goal: Goal, verb: str, reference: str = "") -> str:
    """A goal in words. `reference` points at the goal's target; `verb` is one of its operation's."""
    wanted = goal.wanted
    if wanted is None:
        return f"{verb} {reference}"
    new = f"{'an' if wanted.colour[0] in 'aeiou' else 'a'} {wanted.name}"
    match goal.operation:
        case "recolour":
            return f"{verb} {reference} {'to ' if verb == 'change' else ''}{wanted.colour}"
        case "replace":
            return f"{verb} {reference} {'with' if verb == 'replace' else 'for'} {new}"
        case "move":
            return f"{verb} {reference} to {CELLS[wanted.cell]}"
        case _:
            return f"{verb} {new} at {CELLS[wanted.cell]}"


def sample_instruction(
    scene: Scene, operation: Operation, kind: ReferenceKind, rng: random.Random
) -> str | None:
    """A random instruction of one operation and reference kind ("add" has no reference).

    Names stay unique: no edit asked for makes an object of a colour and shape that another has.

    Returns:
        The text, or None when this scene has no such instruction.
    """
    verb = rng.choice(VERBS[operation])
    if operation == "add":
        goals = _additions(scene)
        return phrase(rng.choice(goals), verb) if goals else None
    if operation == "remove" and len(scene.items) < 3:
        return None
    references = _references(scene, kind)
    if not references:
        return None
    reference, targets = rng.choice(references)
    outcomes = _outcomes(scene, operation, targets)
    if not outcomes:
        return None
    return phrase(Goal(operation, targets[0], rng.choice(outcomes)), verb, reference)


def _additions(scene: Scene) -> list[Goal]:
    used = {item.name for item in scene.items}
    news = [Item(cell, "big", colour, shape) for cell in scene.free for colour in COLOURS for shape in SHAPES]
    return [Goal("add", None, new) for new in news if new.name not in used]


def _references(scene: Scene, kind: ReferenceKind) -> list[tuple[str, tuple[Item, ...]]]:
    """Phrases of one kind with the objects they fit."""
    if kind == "explicit":
        return [(refer(item), (item,)) for item in scene.items]
    if kind == "odd_one_out":
        odd = odd_one_out(scene)
        return [("the odd one out", odd)] if odd else []
    told = [Reference(shape=shape) for shape in SHAPES]
    told += [Reference(colour=colour) for colour in COLOURS]
    if kind == "ambiguous":
        for size in SIZES:
            told += [Reference(size=size, shape=shape) for shape in (None, *SHAPES)]
        least, most = 2, len(scene.items) - 1
    else:
        told += [Reference(extreme=extreme) for extreme in EXTREMES]
        least, most = 1, 1
    found = ((str(reference), reference.matches(scene)) for reference in told)
    return [(text, items) for text, items in found if least <= len(items) <= most]


def _outcomes(scene: Scene, operation: Operation, targets: tuple[Item, ...]) -> list[Item | None]:
    """What the first target may become, such that each of the targets could become it."""
    used = {item.name for item in scene.items}
    first = targets[0]
    match operation:
        case "remove":
            return [None]
        case "move":
            return [replace(first, cell=cell) for cell in scene.free]
        case "recolour":
            news = [replace(first, colour=colour) for colour in COLOURS]
            return [n for n in news if not any(f"{n.colour} {t.shape}" in used for t in targets)]
        case _:
            pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
            return [
                replace(first, colour=colour, shape=shape)
                for colour, shape in pairs
                if f"{colour} {shape}" not in used and all(shape != t.shape for t in targets)
            ]

"""report.html: the tables and every item with its pictures, sortable by score, gain and failure.

Pictures are small copies in a folder beside the page, so that page and folder can be moved together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from thinkedit.actors.images import write_atomically
from thinkedit.envs.images import read_rgb
from thinkedit.errors import DataError
from thinkedit.evals.benchmarks.arms import FINAL, Arm
from thinkedit.evals.benchmarks.base import Item
from thinkedit.evals.benchmarks.figures import Status
from thinkedit.evals.benchmarks.results import ArmResults, Results, item_gain
from thinkedit.evals.benchmarks.tables import COUNTS, WITHHELD, views
from thinkedit.types import RGB

_SIDE = 320  # longest side of a small copy, in pixels
_FOLDER = "pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A picture of a card. path: relative to the page; empty when there is none."""

    caption: str
    path: str
    score: float | None = None
    prompt: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One item of one arm. gain: from turn 1 to the end, where both are judged."""

    arm: str
    item: str
    kind: str
    instruction: str
    status: str
    score: float | None
    gain: float | None
    shots: Sequence[Shot]
    faults: Mapping[str, str]
    stop: str

    @property
    def failed(self) -> bool:
        return self.status != Status.JUDGED


def build_page(results: Results, arms: Iterable[Arm], folder: Path) -> Path:
    """Write report.html and its pictures into a folder."""
    folders = {arm.name: arm for arm in arms}
    (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
    sources: dict[str, str] = {}
    cards = [
        _card(results, found, folders.get(found.name), item, folder, sources)
        for found in results.arms
        for item in results.benchmark.items
    ]
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("thinkedit.evals.benchmarks"), PackageLoader("thinkedit.evals.report")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("benchmark.html.j2").render(
        results=results,
        views=views(results),
        cards=cards,
        arms=[found.name for found in results.arms],
        kinds=sorted({card.kind for card in cards}),
        counts=COUNTS,
        withheld=WITHHELD,
    )
    path = folder / "report.html"
    write_atomically(path, html.encode(), sync=False)
    return path


def _card(
    results: Results, found: ArmResults, arm: Arm | None, item: Item, folder: Path, sources: dict[str, str]
) -> Card:
    benchmark = results.benchmark
    scores = {
        turn: benchmark.score(item, graded.marks) if graded.marks else None
        for turn in found.turns
        if (graded := found.grades[turn][item.id])
    }
    record = (arm.record(item) if arm else None) or {"turns": [], "stop": "", "detail": ""}
    graded = found.grades[found.turns[-1]][item.id]
    faults = dict(graded.faults)
    if item.id in found.failures:
        faults["result"] = found.failures[item.id]
    shots: list[Shot] = []
    if arm is not None:
        if item.id not in sources:
            sources[item.id] = _small(item.source(), folder)
        shots.append(Shot(caption="source", path=sources[item.id]))
        shots += _shots(results, found, arm, item, folder, scores, record["turns"])
    return Card(
        arm=found.name,
        item=item.id,
        kind=item.kind,
        instruction=item.instruction,
        status=graded.status,
        score=scores[found.turns[-1]],
        gain=item_gain(benchmark, found, item, found.turns[-1]),
        shots=shots,
        faults=faults,
        stop=": ".join(filter(None, (record["stop"], record["detail"]))),
    )


def _shots(
    results: Results,
    found: ArmResults,
    arm: Arm,
    item: Item,
    folder: Path,
    scores: Mapping[str, float | None],
    steps: Sequence[Mapping[str, str]],
) -> list[Shot]:
    """A shot for each edit that was made; turns filled forward are not shown again."""
    turns = [turn for turn in found.turns if turn != FINAL and int(turn) <= len(steps)]
    shown = []
    for turn in turns or [FINAL]:
        path = arm.picture(results.benchmark, item, turn)
        step = steps[int(turn) - 1] if turn in turns else {}
        small = None if path is None else _small_result(path, folder)
        if small is not None:
            shown.append(
                Shot(
                    caption=f"turn {turn}" if turn in turns else "result",
                    path=small,
                    score=scores.get(turn),
                    prompt=step.get("prompt", ""),
                    reason=step.get("reason", ""),
                )
            )
    return shown


def _small_result(path: Path, folder: Path) -> str | None:
    """As `_small`; None for a damaged file, which counts as missing."""
    try:
        image = read_rgb(path)
    except DataError:
        return None
    return _small(image, folder)


def _small(image: RGB, folder: Path) -> str:
    """A small copy, named by what it shows; its path relative to the page."""
    name = f"{_FOLDER}/{hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:20]}.webp"
    path = folder / name
    if not path.exists():
        picture = Image.fromarray(image)
        picture.thumbnail((_SIDE, _SIDE))
        part = path.with_name(f".tmp-{path.name}")
        picture.save(part, "WEBP", quality=85)
        part.replace(path)
    return name

"""The results of one arm (an editor, with or without a thinker) on disk, in the official layout by turn.

    arms/<arm>/arm.json                who edited and thought, with settings; another one is refused
    arms/<arm>/turn1/<layout>          the plain edit, turn2/ … the edits after it
    arms/<arm>/final/<layout>          the results; an official scorer is pointed here
    arms/<arm>/items/<item>.json       prompts, critiques, how it ended; written last, so there when whole

An item that stopped early has its last edit in every later turn, so that each turn covers all items.
Results of another instruction or source picture than the benchmark's files now have are not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinkedit.actors.images import write_atomically
from thinkedit.envs.editors.pictures import encode_png
from thinkedit.errors import ConfigError, DataError
from thinkedit.evals.benchmarks.base import Benchmark, Item
from thinkedit.types import RGB

FINAL = "final"
_ABOUT = "arm.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One edit of an item: its prompt, and what the thinker said of it (nothing where it wasn't asked).

    reason, predicted: as read. reply: as it came.
    """

    prompt: str
    reason: str = ""
    reply: str = ""
    predicted: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """What became of one item: its edits in order, which of them is the result, and how it ended.

    unread: replies of the thinker, as they came, that ended it because none could be read.
    """

    images: Sequence[RGB]
    steps: Sequence[Step]
    chosen: int
    stop: str
    detail: str = ""
    unread: Sequence[str] = ()


class Arm:
    """Reads results, in the folder that thinkedit wrote or in anybody's of the official layout.

    Args:
        turns: names of the turns, "final" last. A foreign folder has that one only.
        foreign: the folder itself holds the layout.
    """

    def __init__(self, name: str, folder: Path, turns: Sequence[str], *, foreign: bool = False) -> None:
        self.name, self.folder, self.turns, self.foreign = name, folder, tuple(turns), foreign

    def picture(self, benchmark: Benchmark, item: Item, turn: str) -> Path | None:
        """Where a result lies; None when it is not there."""
        if self.foreign:
            return benchmark.find(self.folder, item)
        return None if self.record(item) is None else benchmark.find(self._turn(turn), item)

    def record(self, item: Item) -> dict[str, Any] | None:
        """The item's prompts and critiques; None where there are none.

        Raises:
            DataError: the item's source can't be read.
        """
        path = self._record(item)
        if self.foreign or not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made_of = found.get("instruction"), found.get("source")
        return found if made_of == (item.instruction, item.source_key) else None

    def about(self) -> dict[str, Any]:
        """Who edited and thought; empty for a foreign folder."""
        path = self.folder / _ABOUT
        return {} if self.foreign or not path.is_file() else dict(json.loads(path.read_text("utf-8")))

    def _turn(self, turn: str) -> Path:
        return self.folder / (turn if turn == FINAL else f"turn{turn}")

    def _record(self, item: Item) -> Path:
        # Hashed as well: ids may hold what file names can't, and differ in just that.
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in item.id)[:80]
        return self.folder / "items" / f"{safe}-{hashlib.sha256(item.id.encode()).hexdigest()[:8]}.json"

    def write(self, benchmark: Benchmark, item: Item, course: Course) -> None:
        """Every turn's result with what belongs beside it, filled forward, and last the record."""
        vouching = self._record(item)
        vouching.unlink(missing_ok=True)  # or one of other results would vouch for half of these
        by_turn = [min(turn, len(course.images) - 1) for turn in range(len(self.turns) - 1)]
        coded = [encode_png(image) for image in course.images]
        written: dict[bytes, Path] = {}
        for turn, index in zip(self.turns, [*by_turn, course.chosen], strict=True):
            folder = self._turn(turn)
            extras = benchmark.extras(folder, item, course.images[index])
            for path, data in {benchmark.result(folder, item): coded[index], **extras}.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                if data in written:
                    _copy(written[data], path)
                else:
                    write_atomically(path, data, sync=False)
                    written[data] = path
        record = {
            "item": item.id,
            "kind": item.kind,
            "instruction": item.instruction,
            "source": item.source_key,
            "stop": course.stop,
            "detail": course.detail,
            "unread": list(course.unread),
            "chosen": course.chosen,
            "turns": [asdict(step) for step in course.steps],
        }
        vouching.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(vouching, json.dumps(record, ensure_ascii=False, indent=1).encode(), sync=True)


def open_arm(root: Path, name: str, about: Mapping[str, Any], turns: Sequence[str]) -> Arm:
    """An arm to write results to, new or to be gone on with.

    Raises:
        ConfigError: a name that can't be a folder's, or results of another editor, thinker or setting.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError(f"an arm's name becomes a folder's: {name!r} can't")
    folder, wanted = root / name, json.loads(json.dumps({**about, "turns": list(turns)}))
    file = folder / _ABOUT
    if file.is_file():
        found = json.loads(file.read_text("utf-8"))
        if found != wanted:
            odd = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
            raise ConfigError(
                f"{folder} holds results that were made otherwise ({', '.join(odd)} differ): "
                "choose another --arm or --out"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(wanted, indent=1).encode(), sync=True)
    return Arm(name, folder, turns)


def stored_arms(root: Path) -> list[Arm]:
    """Every arm that thinkedit wrote below a folder, by name.

    Raises:
        DataError: an arm.json that can't be read.
    """
    arms = []
    for file in sorted(root.glob(f"*/{_ABOUT}")):
        try:
            arms.append(Arm(file.parent.name, file.parent, json.loads(file.read_text("utf-8"))["turns"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: not what an arm's file should be: {error!r}") from error
    return arms


def _copy(source: Path, target: Path) -> None:
    """A second name for a file where the file system has that, else a copy."""
    part = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    part.replace(target)

"""Where tasks come from: the contract of a task source, and one for a user's own pictures."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from thinkedit.envs.images import read_rgb
from thinkedit.errors import ConfigError, DataError, UnknownName
from thinkedit.types import RGB, StoredState, Task

SPLITS = ("train", "val", "test", "sft")
"""sft: for the warm start; train: for reinforcement learning; val and test: held out."""


class TaskSource(ABC):
    """Tasks by split and index. Subclasses write `task` and `size`.

    The same options, split and index give the same task, and no source picture is in two splits.
    """

    Config: ClassVar[type[Any]]
    name: ClassVar[str]

    @abstractmethod
    def task(self, split: str, index: int) -> Task:
        """The task of a split at an index from 0.

        Raises:
            UnknownName: no such split.
            IndexError: the index is negative, or not below a finite split's size.
            DataError: the task's record or picture can't be read.
        """

    def uid(self, split: str, index: int) -> str:
        """The task's uid alone. Sources whose tasks take reading or drawing know it without.

        Raises:
            UnknownName, IndexError, DataError: as `task`.
        """
        return self.task(split, index).uid

    def start(self, split: str, index: int) -> Task | StoredState:
        """What an episode of the task starts from; sources of stored edits give the state.

        Raises:
            UnknownName, IndexError, DataError: as `task`.
        """
        return self.task(split, index)

    @abstractmethod
    def size(self, split: str) -> int | None:
        """Number of tasks in a split; None when there is always another one.

        Raises:
            UnknownName: no such split.
        """


def check_split(split: str) -> None:
    """
    Raises:
        UnknownName: not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)


@dataclass
class FileTasksConfig:
    path: str = MISSING  # a JSONL file; each line {"image": path, "instruction": text, ...}
    val_share: float = 0.05  # shares of pictures whose records name no split;
    test_share: float = 0.10  # which picture goes where follows from its pixels
    sft_share: float = 0.40


class FileTasks(TaskSource):
    """A user's own pairs of picture and instruction from a JSONL file.

    A record has `image` (relative to the file) and `instruction`, and may have `uid`,
    `task_type` and `split`; other keys are kept in `Task.reference`. Pictures become 8-bit RGB
    (`thinkedit.envs.images`). Records without a split get one by a hash of the picture's
    bytes, so that all records of one picture land in the same split.
    """

    Config: ClassVar[type[FileTasksConfig]] = FileTasksConfig
    name = "file"

    def __init__(self, config: FileTasksConfig) -> None:
        self._config = config
        shares = (config.val_share, config.test_share, config.sft_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise ConfigError(f"val_share, test_share and sft_share are shares of one whole, got {shares}")
        self._path = Path(config.path)

    def task(self, split: str, index: int) -> Task:
        record = self._record(split, index)
        own = {"image", "instruction", "uid", "task_type", "split"}
        return Task(
            uid=record["uid"],
            source=self._picture(record["image"]),
            instruction=record["instruction"],
            task_type=record.get("task_type", "unknown"),
            split=split,
            reference={key: value for key, value in record.items() if key not in own},
        )

    def uid(self, split: str, index: int) -> str:
        return str(self._record(split, index)["uid"])

    def size(self, split: str) -> int | None:
        check_split(split)
        return len(self._splits[split])

    def _record(self, split: str, index: int) -> dict[str, Any]:
        check_split(split)
        records = self._splits[split]
        if not 0 <= index < len(records):
            raise IndexError(f"{self._path}: split {split!r} has {len(records)} tasks, asked for {index}")
        return records[index]

    def _picture(self, name: str) -> RGB:
        return read_rgb(self._path.parent / name)

    @cached_property
    def _splits(self) -> dict[str, list[dict[str, Any]]]:
        splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        home: dict[str, str] = {}
        seen: set[str] = set()
        try:
            lines = self._path.read_text(encoding="utf-8").split("\n")  # not splitlines(): it splits texts
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self._path}: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{self._path}:{number}"
            record = _record(line, where)
            digest = self._digest(record["image"], where)
            split = record.get("split") or self._share_of(digest)
            if split not in splits:
                raise DataError(f"{where}: split {split!r} is not one of {', '.join(SPLITS)}")
            if home.setdefault(digest, split) != split:
                raise DataError(f"{where}: picture {record['image']} is in {home[digest]!r} and {split!r}")
            uid = record.setdefault("uid", _uid(digest, record["instruction"], seen))
            if uid in seen:
                raise DataError(f"{where}: uid {uid!r} is used twice")
            seen.add(uid)
            splits[split].append(record)
        return splits

    def _digest(self, name: str, where: str) -> str:
        try:
            return hashlib.sha256((self._path.parent / name).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{where}: image: {error}") from error

    def _share_of(self, digest: str) -> str:
        config = self._config
        return split_of(digest, val=config.val_share, test=config.test_share, sft=config.sft_share)


def split_of(digest: str, **shares: float) -> str:
    """The split that a hash in hexadecimal falls into; what the shares leave is "train"."""
    place = int(digest[:12], 16) / 16**12
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    return "train"


def _uid(digest: str, instruction: str, seen: Set[str]) -> str:
    """A name that stays where the record's line moves: of picture and instruction, counted where repeated."""
    name = f"{digest[:16]}/{hashlib.sha256(instruction.encode()).hexdigest()[:8]}"
    return next(uid for n in count(1) if (uid := name if n == 1 else f"{name}-{n}") not in seen)


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: expected an object, got {type(record).__name__}")
    record = dict(record)
    for key in ("image", "instruction"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise DataError(f"{where}: {key}: expected text that is not empty, got {record.get(key)!r}")
    try:
        record["instruction"].encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: instruction: half a character that no text can hold: {error}") from error
    for key in ("uid", "task_type", "split"):
        if key in record and not isinstance(record[key], str):
            raise DataError(f"{where}: {key}: expected text, got {record[key]!r}")
    return record

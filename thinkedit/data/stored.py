"""Stored states as a task source: episodes start from scored edits of a file, the paper's one-step regime."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from omegaconf import MISSING
from PIL import Image

from thinkedit.data import pictures
from thinkedit.data.formats import records, reference
from thinkedit.data.formats.lines import Line, read_lines
from thinkedit.data.formats.records import ImageRef, Record
from thinkedit.envs.images import read_rgb
from thinkedit.envs.tasks import SPLITS, TaskSource, check_split, split_of
from thinkedit.errors import ConfigError, DataError, UnknownName
from thinkedit.types import RGB, Scores, StoredState, Task, Verdict

FORMATS = ("reference", "records")


@dataclass
class StoredTasksConfig:
    path: str = MISSING  # JSON Lines
    val_path: str | None = None  # a file of the same format for "val"; then val_share must be 0
    format: str = "reference"  # "reference": EditThinker's rl_train.jsonl | "records": ours, of build-data
    image_dir: str | None = None  # what relative image paths are relative to; None: the file's folder
    val_share: float = 0.02  # shares of source images held out; which one follows from its file's bytes
    test_share: float = 0.02
    resize: bool = False  # scale stored edits of another size than their source to it


class StoredTasks(TaskSource):
    """States from a file, checked line by line when it is first used and then read one by one.

    A state whose record names the judge starts with its verdict, and that judge must be the run's.
    One without (the reference names none) is graded by the run's judge when an episode starts from
    it, so that scores of two judges never meet.
    """

    Config: ClassVar[type[StoredTasksConfig]] = StoredTasksConfig
    name = "stored"

    def __init__(self, config: StoredTasksConfig) -> None:
        """
        Raises:
            UnknownName: no such format.
            ConfigError: shares that are none, or a share beside a file for the same split.
        """
        if config.format not in FORMATS:
            raise UnknownName("format", config.format, FORMATS)
        if min(config.val_share, config.test_share) < 0 or config.val_share + config.test_share > 1:
            raise ConfigError(
                f"val_share={config.val_share} and test_share={config.test_share} are shares of one whole"
            )
        if config.val_path is not None and config.val_share:
            raise ConfigError(
                f"val_path={config.val_path} holds all validation states: set val_share=0, it is "
                f"{config.val_share}"
            )
        self._config, self._path = config, Path(config.path)
        self._val_path = Path(config.val_path) if config.val_path else None

    def task(self, split: str, index: int) -> Task:
        """The state's task alone: for a first edit of one's own."""
        return self._task(self._record(split, index), split)

    def uid(self, split: str, index: int) -> str:
        return self._record(split, index).uid

    def start(self, split: str, index: int) -> StoredState:
        """The state.

        Raises:
            DataError: a picture can't be read, or the edit has another size than the source.
        """
        record = self._record(split, index)
        task, score = self._task(record, split), record.score
        verdict = None
        if score.judge_id is not None and score.prompt_hash is not None:
            scores = Scores(score.semantic, score.quality)
            verdict = Verdict(scores=scores, judge_id=score.judge_id, prompt_hash=score.prompt_hash)
        edited = self._edited(record, task.source)
        return StoredState(task=task, edited=edited, prompt=record.prompt, verdict=verdict)

    def size(self, split: str) -> int:
        check_split(split)
        return len(self._places[split])

    def _task(self, record: Record, split: str) -> Task:
        return Task(
            uid=record.uid,
            source=read_rgb(record.source_image.path),
            instruction=record.instruction,
            task_type=record.task_type,
            split=split,
            reference={"trajectory_id": record.trajectory_id, "step": record.step},
        )

    def _edited(self, record: Record, source: RGB) -> RGB:
        edited = read_rgb(record.edited_image.path)
        if edited.shape == source.shape:
            return edited
        if not self._config.resize:
            raise DataError(
                f"{record.uid}: {record.edited_image.path} has {edited.shape[1]} x {edited.shape[0]} pixels, "
                f"its source {source.shape[1]} x {source.shape[0]}: tasks.options.resize=true scales it"
            )
        size = source.shape[1], source.shape[0]
        return np.array(Image.fromarray(edited).resize(size, Image.Resampling.LANCZOS))

    def _record(self, split: str, index: int) -> Record:
        check_split(split)
        places = self._places[split]
        if not 0 <= index < len(places):
            raise IndexError(f"{places.file}: split {split!r} has {len(places)} states, asked for {index}")
        number, offset = places[index]
        with open(places.file, "rb") as file:
            file.seek(offset)
            return self._parse(Line(places.file, number, offset, file.readline()))

    def _parse(self, line: Line) -> Record:
        config = self._config
        folder = Path(config.image_dir) if config.image_dir else line.file.parent
        if config.format == "records":
            return records.absolute(records.parse(line.data, line.where), folder)
        return reference.parse(line.data, line.where, uid=f"{line.file.stem}/{line.number}", image_dir=folder)

    @cached_property
    def _places(self) -> dict[str, _Places]:
        """Where the states of each split are; reads and checks the whole files once."""
        places = {split: _Places(self._path) for split in SPLITS}
        config, learned = self._config, dict[str, int]()
        shares = {"val": config.val_share, "test": config.test_share}
        for line in read_lines(self._path):
            source = self._parse(line).source_image
            if self._val_path is None and not any(shares.values()):  # nothing to keep apart
                places["train"].add(line)
                continue
            digest = self._digest(source, line)
            places[split_of(digest, **shares)].add(line)
            if self._val_path is not None:
                learned.setdefault(digest, line.number)
        if self._val_path is not None:
            places["val"] = _Places(self._val_path)
            for line in read_lines(self._val_path):
                digest = self._digest(self._parse(line).source_image, line)
                if digest in learned:
                    raise DataError(
                        f"{line.where}: source image: {self._path}:{learned[digest]} has the same picture, "
                        "and what is trained on can't validate: take it out of one of the two"
                    )
                places["val"].add(line)
        return places

    def _digest(self, source: ImageRef, line: Line) -> str:
        """Of the picture's bytes: one picture under two names is one."""
        try:
            return source.sha256 or pictures.sha256_of(source.path)
        except DataError as error:
            raise DataError(f"{line.where}: source image: {error}") from error


class _Places:
    """Line numbers and byte offsets in a file, 16 bytes a line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._numbers, self._offsets = array("q"), array("q")

    def add(self, line: Line) -> None:
        self._numbers.append(line.number)
        self._offsets.append(line.offset)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self._numbers[index], self._offsets[index]

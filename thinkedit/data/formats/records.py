"""Our canonical record: one step of a trajectory per JSON line, with where everything in it came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from thinkedit.data.formats.lines import Mark, Text, decode, read_lines
from thinkedit.types import Scores

Count = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]

_OVERALL_TOLERANCE = 0.05  # files of others round it


class ImageRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image by reference; `sha256` is of the file's bytes, width and height are in pixels."""

    path: Text
    sha256: Sha256 | None = None
    width: Count | None = None
    height: Count | None = None


class Editor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which editor made the edit, with its settings, and from which seed."""

    name: str
    revision: str | None = None
    config: dict[str, Any] = {}
    seed: int | None = None


class Expert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an expert said of the edit. next_prompt: null when it was satisfied."""

    model: str | None = None
    reason: str
    next_prompt: str | None
    stop: bool


class Score(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """semantic, quality: in [0, 10]; overall = sqrt(semantic * quality); who gave them, if known."""

    semantic: Mark
    quality: Mark
    overall: Mark
    judge_id: str | None = None
    prompt_hash: str | None = None

    def __post_init__(self) -> None:
        expected = Scores(self.semantic, self.quality).overall
        if abs(self.overall - expected) > _OVERALL_TOLERANCE:
            raise ValueError(f"overall is {self.overall:g}, but sqrt(semantic * quality) is {expected:.4g}")

    @classmethod
    def of(
        cls, semantic: float, quality: float, judge_id: str | None = None, prompt_hash: str | None = None
    ) -> Score:
        """A score with its overall."""
        overall = round(Scores(semantic, quality).overall, 9)
        return cls(
            semantic=semantic, quality=quality, overall=overall, judge_id=judge_id, prompt_hash=prompt_hash
        )


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The edit that `prompt` gave at step `step` (from 0) of `n_steps`, its score, and the critique of it.

    kind: "refine" (answer is a better prompt) or "stop" (answer repeats `prompt`); null for RL,
        which needs no target. expert: what the target's reasoning comes from.
    split: "sft" or "rl".
    """

    uid: Text
    instruction: Text
    prompt: Text
    source_image: ImageRef
    edited_image: ImageRef
    score: Score
    trajectory_id: str | None = None
    step: Count = 0
    n_steps: Annotated[int, Meta(ge=1)] = 1
    task_type: str = "unknown"
    source_dataset: str | None = None
    editor: Editor | None = None
    expert: Expert | None = None
    kind: Literal["refine", "stop"] | None = None
    answer: Text | None = None
    split: Literal["sft", "rl"] | None = None

    def __post_init__(self) -> None:
        if (self.kind is None) != (self.answer is None):
            raise ValueError("kind and answer go together: both or none")
        if self.kind is not None and self.expert is None:
            raise ValueError("a record with an answer needs the expert's reasoning")


_DECODER = msgspec.json.Decoder(Record)
encode = msgspec.json.Encoder().encode


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file, image paths made absolute.

    Raises:
        DataError: names file, line and field.
    """
    for line in read_lines(path):
        yield absolute(parse(line.data, line.where), path.parent)


def parse(data: bytes, where: str) -> Record:
    """One line as a record.

    Raises:
        DataError: names `where` and the field.
    """
    return decode(_DECODER, data, where)


def absolute(record: Record, folder: Path) -> Record:
    """The record with image paths that no longer depend on the folder of its file."""
    source, edited = (_absolute(image, folder) for image in (record.source_image, record.edited_image))
    return msgspec.structs.replace(record, source_image=source, edited_image=edited)


def _absolute(image: ImageRef, folder: Path) -> ImageRef:
    return msgspec.structs.replace(image, path=str((folder / image.path).absolute()))

"""`rl_train.jsonl` as EditThinker publishes it: a scored edit per line, to start a one-step episode from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from thinkedit.data.formats.lines import Mark, Text, decode, read_lines
from thinkedit.data.formats.records import ImageRef, Record, Score


class Evaluation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    semantics: Mark
    quality: Mark
    overall: Mark | None = None  # written for others, never read: it follows from the two


class ReferenceRow(Struct, frozen=True, kw_only=True):
    """The keys that EditThinker's loader reads; any others are ignored."""

    origin_prompt: Text
    rewritten_prompt: Text
    origin_image_path: Text
    edited_image_path: Text
    evaluation: Evaluation


_DECODER = msgspec.json.Decoder(ReferenceRow)
encode = msgspec.json.Encoder().encode


def parse(data: bytes, where: str, *, uid: str, image_dir: Path) -> Record:
    """One line as a record. Nobody says which judge gave its score.

    Args:
        image_dir: what relative image paths are relative to.

    Raises:
        DataError: names `where` and the field.
    """
    row = decode(_DECODER, data, where)
    return Record(
        uid=uid,
        instruction=row.origin_prompt,
        prompt=row.rewritten_prompt,
        source_image=_image(row.origin_image_path, image_dir),
        edited_image=_image(row.edited_image_path, image_dir),
        score=Score.of(row.evaluation.semantics, row.evaluation.quality),
        split="rl",
    )


def read_reference(path: Path, image_dir: Path | None = None) -> Iterator[Record]:
    """The lines of a file as records named after file and line.

    Raises:
        DataError: names file, line and field.
    """
    for line in read_lines(path):
        uid = f"{path.stem}/{line.number}"
        yield parse(line.data, line.where, uid=uid, image_dir=image_dir or path.parent)


def row_of(record: Record) -> ReferenceRow:
    """A record as the reference's line: trajectory, editor and judge have no place there."""
    return ReferenceRow(
        origin_prompt=record.instruction,
        rewritten_prompt=record.prompt,
        origin_image_path=record.source_image.path,
        edited_image_path=record.edited_image.path,
        evaluation=Evaluation(
            semantics=record.score.semantic,
            quality=record.score.quality,
            overall=round(record.score.overall, 2),
        ),
    )


def _image(path: str, folder: Path) -> ImageRef:
    return ImageRef(path=str((folder / path).absolute()))

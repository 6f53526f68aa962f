"""SFT examples as chats: LLaMA-Factory's ShareGPT JSON, and the parquet that verl and our SFT read.

`<image>` in a user message stands where an image goes, in the order of `images`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TextIO

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Meta, Struct

from thinkedit.data.formats.lines import Text, convert, read_values
from thinkedit.data.formats.records import Record
from thinkedit.data.formats.tables import Rows, read_rows
from thinkedit.data.rules.sanity import said
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import DataError
from thinkedit.types import RGB, Observation

PLACEHOLDER = "<image>"
_NO_IMAGE: RGB = np.zeros((1, 1, 3), np.uint8)  # the text does not depend on the pictures

SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("image", pa.string())]))),  # absolute paths
        ("uid", pa.string()),
    ]
)


class Message(Struct, frozen=True):
    role: Literal["user", "assistant"]
    content: Text


class Example(Struct, frozen=True, kw_only=True):
    """One user message with its images, and the reply to learn.

    images: absolute paths in the order of the placeholders.
    """

    messages: Annotated[tuple[Message, ...], Meta(min_length=2, max_length=2)]
    images: tuple[Text, ...]
    uid: str | None = None

    def __post_init__(self) -> None:
        roles = [message.role for message in self.messages]
        if roles != ["user", "assistant"]:
            raise ValueError(f"messages: expected one of the user and one of the assistant, got {roles}")
        slots = self.messages[0].content.count(PLACEHOLDER)
        if slots != len(self.images):
            raise ValueError(f"images: {len(self.images)} for {slots} {PLACEHOLDER} placeholders")


def reply_of(record: Record, protocol: Protocol) -> str:
    """The reply that a record teaches.

    Raises:
        DataError: the record has no answer, or no well-formed reply says it.
    """
    if record.answer is None or record.expert is None:
        raise DataError(f"record {record.uid!r} has no answer to learn: it is an RL record")
    score = record.score
    try:
        return said(
            protocol, record.expert.reason, score.semantic, score.quality, record.answer, record.prompt
        )
    except ValueError as error:
        raise DataError(f"record {record.uid!r}: {error}") from error


def example_of(record: Record, protocol: Protocol, reply: str | None = None) -> Example:
    """A record as the chat that our policy will see.

    Args:
        reply: the record's, where it is known already.

    Raises:
        DataError: see `reply_of`.
    """
    if reply is None:
        reply = reply_of(record, protocol)
    asked = PLACEHOLDER * 2 + prompt_text(record, protocol)
    images = (record.source_image.path, record.edited_image.path)
    return Example(
        messages=(Message("user", asked), Message("assistant", reply)), images=images, uid=record.uid
    )


def prompt_text(record: Record, protocol: Protocol) -> str:
    """The text of the user message, without image placeholders."""
    return protocol.render_text(
        Observation(
            source=_NO_IMAGE,
            edited=_NO_IMAGE,
            instruction=record.instruction,
            prompt=record.prompt,
            turn=record.step,
            turns_left=record.n_steps - record.step,
        )
    )


def read_sharegpt(path: Path) -> Iterator[Example]:
    """The examples of a LLaMA-Factory file, a JSON list or JSON Lines; image paths made absolute.

    Raises:
        DataError: names file, line and field.
    """
    for line, value in read_values(path):
        yield _absolute(convert(value, Example, f"{path}:{line}"), path.parent)


class SharegptWriter:
    """Writes a JSON list, an example a line."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed in `close`
        self._file.write("[")
        self._count = 0

    def write(self, example: Example) -> None:
        self._file.write(",\n" if self._count else "\n")
        chat = {"messages": example.messages, "images": example.images}
        self._file.write(msgspec.json.encode(chat).decode())
        self._count += 1

    def close(self) -> None:
        self._file.write("\n]\n")
        self._file.close()


def read_chat_parquet(path: Path) -> Iterator[Example]:
    """The examples of a parquet with columns `messages` and `images`, images by reference.

    Raises:
        DataError: names file, row and field; images inside the file have no path to refer to.
    """
    for where, row in read_rows(path, ("messages", "images"), optional=("uid",)):
        images = row["images"]
        if isinstance(images, list):
            row["images"] = [
                image["image"] if isinstance(image, dict) and "image" in image else image for image in images
            ]
        yield _absolute(convert(row, Example, where), path.parent)


class ChatParquetWriter:
    """Writes the parquet that verl's SFT and ours read, images by reference."""

    def __init__(self, path: Path) -> None:
        self._rows = Rows(path, SCHEMA)

    def write(self, example: Example) -> None:
        self._rows.write(
            {
                "messages": [{"role": m.role, "content": m.content} for m in example.messages],
                "images": [{"image": path} for path in example.images],
                "uid": example.uid,
            }
        )

    def close(self) -> None:
        self._rows.close()


def _absolute(example: Example, folder: Path) -> Example:
    images = tuple(str((folder / image).absolute()) for image in example.images)
    return msgspec.structs.replace(example, images=images)

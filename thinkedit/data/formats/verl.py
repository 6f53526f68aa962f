"""The parquet that verl's RLHFDataset reads; our record travels whole in `extra_info`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from thinkedit.data.formats.chat import PLACEHOLDER, prompt_text
from thinkedit.data.formats.records import Record, absolute, encode, parse
from thinkedit.data.formats.tables import Rows, read_rows
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import DataError

DATA_SOURCE = "thinkedit"

SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("image", pa.string())]))),  # absolute paths
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct([("index", pa.int64()), ("split", pa.string()), ("record", pa.string())]),
        ),
    ]
)


class VerlWriter:
    """Writes records as prompts for RL, images by reference."""

    def __init__(self, path: Path, protocol: Protocol) -> None:
        self._rows, self._protocol, self._count = Rows(path, SCHEMA), protocol, 0

    def write(self, record: Record) -> None:
        score = {"semantic": record.score.semantic, "quality": record.score.quality}
        text = PLACEHOLDER * 2 + prompt_text(record, self._protocol)
        self._rows.write(
            {
                "data_source": DATA_SOURCE,
                "prompt": [{"role": "user", "content": text}],
                "images": [{"image": image.path} for image in (record.source_image, record.edited_image)],
                "ability": "image-edit",
                "reward_model": {"style": "model", "ground_truth": json.dumps(score)},
                "extra_info": {
                    "index": self._count,
                    "split": record.split or "rl",
                    "record": encode(record).decode(),
                },
            }
        )
        self._count += 1

    def close(self) -> None:
        self._rows.close()


def read_verl(path: Path) -> Iterator[Record]:
    """The records of such a file.

    Raises:
        DataError: names file, row and field; `extra_info.record` is missing where another tool wrote it.
    """
    for where, row in read_rows(path, ("prompt", "images", "reward_model", "extra_info")):
        extra = row["extra_info"]
        held = extra.get("record") if isinstance(extra, dict) else None
        if not isinstance(held, str):
            raise DataError(
                f"{where}: extra_info.record: this required field is missing; only verl files that "
                "thinkedit wrote say which part of a prompt is the instruction"
            )
        yield absolute(parse(held.encode(), f"{where}: extra_info.record"), path.parent)

"""The files that `build-data` leaves: every format that is wanted, written side by side in one pass.

records/{sft,rl}.jsonl     our canonical records
sft_train.json             LLaMA-Factory's ShareGPT list
rl_train.jsonl             the reference's RL lines
verl/{sft,rl}.parquet      verl's SFT and RL tables
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

from thinkedit.data.formats import records, reference
from thinkedit.data.formats.chat import ChatParquetWriter, Example, SharegptWriter, example_of
from thinkedit.data.formats.records import Record
from thinkedit.data.formats.verl import VerlWriter
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import UnknownName

FORMATS = ("records", "llamafactory", "reference", "verl")


class JsonLines:
    """Encoded records, one a line."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed in `close`

    def write(self, data: bytes) -> None:
        self._file.write(data + b"\n")

    def close(self) -> None:
        self._file.close()


class Outputs:
    """Writes SFT and RL records in every format. Use as a context manager.

    Args:
        folder: there already.

    Raises:
        UnknownName: no such format.
    """

    def __init__(self, folder: Path, formats: list[str], protocol: Protocol) -> None:
        for name in formats:
            if name not in FORMATS:
                raise UnknownName("data.formats", name, FORMATS)
        self._folder, self._formats, self._protocol = folder, formats, protocol
        self._stack = ExitStack()
        self._records: dict[str, JsonLines] = {}
        self._examples: list[SharegptWriter | ChatParquetWriter] = []
        self._reference: JsonLines | None = None
        self._verl: VerlWriter | None = None

    def __enter__(self) -> Self:
        folder = self._folder
        if "records" in self._formats:
            (folder / "records").mkdir()
            for split in ("sft", "rl"):
                self._records[split] = self._opened(JsonLines(folder / "records" / f"{split}.jsonl"))
        if "llamafactory" in self._formats:
            self._examples.append(self._opened(SharegptWriter(folder / "sft_train.json")))
        if "reference" in self._formats:
            self._reference = self._opened(JsonLines(folder / "rl_train.jsonl"))
        if "verl" in self._formats:
            (folder / "verl").mkdir()
            self._examples.append(self._opened(ChatParquetWriter(folder / "verl" / "sft.parquet")))
            self._verl = self._opened(VerlWriter(folder / "verl" / "rl.parquet", self._protocol))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def sft(self, record: Record, reply: str) -> None:
        """Write a record that has an answer, and the reply that says it."""
        self._record("sft", record)
        if self._examples:
            example: Example = example_of(record, self._protocol, reply)
            for writer in self._examples:
                writer.write(example)

    def rl(self, record: Record) -> None:
        """Write a state to start an episode from."""
        self._record("rl", record)
        if self._reference:
            self._reference.write(reference.encode(reference.row_of(record)))
        if self._verl:
            self._verl.write(record)

    def _record(self, split: str, record: Record) -> None:
        if split in self._records:
            self._records[split].write(records.encode(record))

    def _opened(self, writer: Any) -> Any:
        self._stack.callback(writer.close)
        return writer

"""From one format to another, and from any to the table that SFT reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from thinkedit.data.formats import records, reference
from thinkedit.data.formats.chat import (
    ChatParquetWriter,
    Example,
    SharegptWriter,
    example_of,
    read_chat_parquet,
    read_sharegpt,
)
from thinkedit.data.formats.records import Record, read_records
from thinkedit.data.formats.reference import read_reference, row_of
from thinkedit.data.formats.verl import VerlWriter, read_verl
from thinkedit.data.writers import JsonLines
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import DataError, UnknownName

EXAMPLES = {"sharegpt": read_sharegpt, "verl-sft": read_chat_parquet}
"""Formats whose prompts are worded already; what the instruction was they do not say."""

RECORDS = {"records": read_records, "reference": read_reference, "verl-rl": read_verl}

FORMATS = (*RECORDS, *EXAMPLES)


def read_any(path: Path, form: str) -> Iterator[Record] | Iterator[Example]:
    """
    Raises:
        UnknownName: no such format.
        DataError: names file, line or row, and field.
    """
    if form in EXAMPLES:
        return EXAMPLES[form](path)
    if form in RECORDS:
        return RECORDS[form](path)
    raise UnknownName("format", form, FORMATS)


def convert(source: Path, source_format: str, target: Path, target_format: str, protocol: Protocol) -> int:
    """Rewrite a file in another format; the target appears when it is complete.

    Args:
        protocol: words the prompts of records that become examples or verl rows.

    Returns:
        The number of records.

    Raises:
        DataError: a record that the source's or the target's format does not allow, e.g. a state
            without an answer as an SFT example, or an example as a record.
    """
    partial = target.with_name(f".{target.name}.partial")
    count = 0
    try:
        with closing(_Writer(partial, target_format, protocol)) as writer:
            for record in read_any(source, source_format):
                writer.write(record)
                count += 1
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def write_sft_table(source: Path, target: Path, protocol: Protocol) -> int:
    """Examples as the parquet that SFT reads, images by reference: `.json` is ShareGPT, `.jsonl` our
    records, `.parquet` verl's SFT table.

    Returns:
        The number of examples.

    Raises:
        DataError: another kind of file, or a record that is no example; names file, line and field.
    """
    forms = {".json": "sharegpt", ".jsonl": "records", ".parquet": "verl-sft"}
    if source.suffix not in forms:
        raise DataError(f"{source}: SFT reads {', '.join(forms)} (ShareGPT, records, verl)")
    target.parent.mkdir(parents=True, exist_ok=True)
    return convert(source, forms[source.suffix], target, "verl-sft", protocol)


class _Writer:
    """Writes records or examples in a format."""

    def __init__(self, path: Path, form: str, protocol: Protocol) -> None:
        self._form, self._protocol = form, protocol
        self._examples: SharegptWriter | ChatParquetWriter | None = None
        self._lines: JsonLines | None = None
        self._verl: VerlWriter | None = None
        match form:
            case "sharegpt":
                self._examples = SharegptWriter(path)
            case "verl-sft":
                self._examples = ChatParquetWriter(path)
            case "verl-rl":
                self._verl = VerlWriter(path, protocol)
            case "records" | "reference":
                self._lines = JsonLines(path)
            case _:
                raise UnknownName("format", form, FORMATS)

    def write(self, record: Record | Example) -> None:
        if self._examples:
            example = record if isinstance(record, Example) else example_of(record, self._protocol)
            self._examples.write(example)
            return
        if isinstance(record, Example):
            raise DataError(
                f"an SFT example can't become {self._form}: its instruction and prompt are inside the wording"
            )
        if self._verl:
            self._verl.write(record)
        elif self._lines and self._form == "records":
            self._lines.write(records.encode(record))
        elif self._lines:
            self._lines.write(reference.encode(row_of(record)))

    def close(self) -> None:
        for writer in (self._examples, self._lines, self._verl):
            if writer:
                writer.close()

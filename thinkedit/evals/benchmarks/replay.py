"""Files of raw replies, a JSON object a line: written after each evaluation, read by `--judge replay:FILE`.

    {"item": "temporal_reasoning_1", "metric": "Reasoning", "reply": "… Final Score: 4"}

`arm` and `turn` may be given too (default: "replay" and "final"). A reply of null is one that never
came; `failure` says why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from thinkedit.errors import DataError, UnknownName
from thinkedit.evals.benchmarks.base import Benchmark
from thinkedit.evals.benchmarks.store import UNANSWERED, Row, as_record

ARM, FINAL = "replay", "final"


def write_replies(path: Path, rows: Iterable[Row]) -> None:
    """Appears whole or not at all."""
    part = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    with part.open("w", encoding="utf-8") as file:
        for row in sorted(rows, key=lambda row: (row.arm, row.key)):
            file.write(json.dumps(as_record(row), ensure_ascii=False) + "\n")
    part.replace(path)


def read_replies(path: Path, benchmark: Benchmark) -> dict[str, list[Row]]:
    """Rows by arm.

    Raises:
        DataError: no such file, a line that is no record, or the same reply twice; with the line.
        UnknownName: an item or a metric that the benchmark doesn't have.
    """
    metrics = {item.id: [ask.metric for ask in benchmark.asks(item)] for item in benchmark.items}
    arms: dict[str, dict[tuple[str, str, str], Row]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() also splits inside replies
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}, line {number}"
            row = _row(line, where, metrics)
            if arms.setdefault(row.arm, {}).setdefault(row.key, row) is not row:
                raise DataError(f"{where}: {' / '.join((row.arm, *row.key))} is there twice")
    if not arms:
        raise DataError(f"{path}: no replies in it")
    return {arm: list(rows.values()) for arm, rows in arms.items()}


def _row(line: str, where: str, metrics: dict[str, list[str]]) -> Row:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, got {type(record).__name__}")
    item, metric = _text(record, "item", where), _text(record, "metric", where)
    if item not in metrics:
        raise UnknownName(f"item in {where}:", item, metrics)
    if metric not in metrics[item]:
        raise UnknownName(f"metric of item {item!r} in {where}:", metric, metrics[item])
    reply = record.get("reply")
    if reply is not None and not isinstance(reply, str):
        raise DataError(f"{where}: reply: expected text or null, got {reply!r}")
    known = {field.name for field in fields(Row)}
    rest = {key: value for key, value in record.items() if key in known}
    defaults = {"arm": ARM, "turn": FINAL, "failure": "" if reply is not None else UNANSWERED}
    values = defaults | rest
    values["turn"] = str(values["turn"])
    values["failure"] = values["failure"] or defaults["failure"]
    return Row(**values)


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: {key}: expected text, got {value!r}")
    record[key] = value
    return value

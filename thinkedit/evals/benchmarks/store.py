"""Raw replies of one judge, kept by key: arm, item, turn and metric. Marks are never stored.

A database and not a log, so that no reply can be there twice and a killed run leaves whole replies.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Self

Key = tuple[str, str, str]
"""Item, turn and metric: a row of one arm."""

UNANSWERED = "unanswered"  # nobody could be asked
REFUSED = "refused"  # the judge would not answer
UNREADABLE = "unreadable"  # it answered, and there is no text to read again
MISSING = "missing"  # what lies in the result's place is no picture
UNSUPPORTED = "unsupported"  # the editor can't make the item
"""What a failure begins with. Only refused and unreadable rows are stored; the others may change unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a judge said about one result.

    turn: "1", "2", … or "final".
    seen: hash of all pictures and the question; another one means that the reply is of something else.
    reply: as it came; None when there was none.
    failure: why there is none, "refused: …" or another of the words above; else "".
    model: as the server names it. calls: requests sent for it.
    """

    arm: str
    item: str
    turn: str
    metric: str
    seen: str = ""
    reply: str | None = None
    failure: str = ""
    model: str = ""
    calls: int = 0

    @property
    def lacks(self) -> str:
        """The word that `failure` begins with: `REFUSED`, … or whatever a file of replies says."""
        return self.failure.partition(":")[0]

    @property
    def key(self) -> Key:
        return self.item, self.turn, self.metric


_COLUMNS = [field.name for field in fields(Row)]


class ReplyStore:
    """The replies of one judge about any number of arms; rows are on disk when `put` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(path)
        with self._base:
            self._base.execute(
                f"CREATE TABLE IF NOT EXISTS replies ({', '.join(_COLUMNS)}, "
                "PRIMARY KEY (arm, item, turn, metric))"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def rows(self, arm: str) -> dict[Key, Row]:
        """Every row of an arm."""
        found = self._base.execute(f"SELECT {', '.join(_COLUMNS)} FROM replies WHERE arm = ?", (arm,))
        rows = (Row(**dict(zip(_COLUMNS, values, strict=True))) for values in found)
        return {row.key: row for row in rows}

    def put(self, rows: Iterable[Row]) -> None:
        """Add rows, or replace those of the same key; all of them or none."""
        marks = ", ".join("?" * len(_COLUMNS))
        with self._base:
            self._base.executemany(f"INSERT OR REPLACE INTO replies VALUES ({marks})", map(astuple, rows))


def as_record(row: Row) -> dict[str, object]:
    """A row as a line of a replies file."""
    return asdict(row)

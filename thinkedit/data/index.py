"""An index of trajectories on disk: rows come back in any order without being held in memory.

SQLite sorts with temporary files, so the rules over many trajectories need no more memory for ten
million of them than for ten thousand. The trajectories stay in their files; a row says where.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

from thinkedit.data.formats.lines import Line
from thinkedit.data.rules.balance import Cell
from thinkedit.data.rules.fates import Fate
from thinkedit.data.rules.summaries import Summary
from thinkedit.errors import DataError

_COLUMNS = ", ".join(Summary._fields)
_ADDRESS = "SELECT path, line, offset, size FROM trajectory JOIN file ON file = number"
_BATCH = 1000

_TABLES = """
PRAGMA journal_mode = OFF;   -- a scratch file: after a crash it is made anew
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -65536;  -- KiB
CREATE TABLE file (number INTEGER PRIMARY KEY, path TEXT UNIQUE);
CREATE TABLE trajectory (
    n INTEGER PRIMARY KEY, trajectory_id TEXT UNIQUE, source TEXT, pair TEXT, task_type TEXT,
    best REAL, lowest REAL, variance REAL, steps INTEGER, sft_steps INTEGER, place TEXT, fate TEXT,
    level INTEGER, file INTEGER, line INTEGER, offset INTEGER, size INTEGER
);
CREATE TEMP TABLE decided (n INTEGER PRIMARY KEY, fate TEXT);
"""


class Address(NamedTuple):
    """Where a trajectory's line is: byte offset and size, line number from 1."""

    path: Path
    line: int
    offset: int
    size: int


class Index:
    """Rows of `Summary` with their fates. Rules decide only about rows that have none yet.

    Args:
        path: a scratch file; one that is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._sql = sqlite3.connect(path, isolation_level=None)
        self._sql.executescript(_TABLES)
        self._sql.execute("BEGIN")
        self._files: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sql.close()

    def add(self, line: Line, trajectory_id: str, n: int, found: Summary | Fate) -> None:
        """A trajectory's summary, or why it has none.

        Raises:
            DataError: another trajectory has this id.
        """
        place = {
            "file": self._file(line.file),
            "line": line.number,
            "offset": line.offset,
            "size": len(line.data),
        }
        if isinstance(found, Summary):
            row = {**found._asdict(), "level": found.level, **place}
        else:
            row = {"n": n, "trajectory_id": trajectory_id, "fate": found.value, **place}
        names = ", ".join(row)
        slots = ", ".join(f":{name}" for name in row)
        try:
            self._sql.execute(f"INSERT INTO trajectory ({names}) VALUES ({slots})", row)
        except sqlite3.IntegrityError:
            other = self._address("trajectory_id = ?", trajectory_id)
            raise DataError(
                f"{line.where}: trajectory_id: {trajectory_id!r} is also the id of {other.path}:{other.line}"
            ) from None

    def rows(
        self,
        order: str,
        *,
        fate: Fate | None = None,
        beside: Fate | None = None,
        values: Mapping[str, float] | None = None,
    ) -> Iterator[Summary]:
        """Rows in an order.

        Args:
            order: SQL over the fields of `Summary`; the rules name theirs.
            values: what `:name` in the order stands for.
            fate: of the rows; None: the undecided.
            beside: rows of this fate too.
        """
        chosen = "fate IS :fate OR (:beside IS NOT NULL AND fate = :beside)"
        query = f"SELECT {_COLUMNS} FROM trajectory WHERE {chosen} ORDER BY {order}"
        with closing(self._sql.execute(query, {"fate": fate, "beside": beside, **(values or {})})) as cursor:
            yield from map(Summary._make, cursor)

    def decide(self, decisions: Iterable[tuple[Summary, Fate]]) -> int:
        """Give rows their fates, all at the end: what a rule reads does not change under it.

        Returns:
            How many.
        """
        pairs = ((row.n, fate.value) for row, fate in decisions)
        while batch := list(islice(pairs, _BATCH)):
            self._sql.executemany("INSERT INTO decided VALUES (?, ?)", batch)
        self._sql.execute(
            "UPDATE trajectory SET fate = decided.fate FROM decided WHERE trajectory.n = decided.n"
        )
        (count,) = self._sql.execute("SELECT count(*) FROM decided").fetchone()
        self._sql.execute("DELETE FROM decided")
        return int(count)

    def count(self, *, fate: Fate | None = None) -> int:
        (count,) = self._sql.execute("SELECT count(*) FROM trajectory WHERE fate IS ?", [fate]).fetchone()
        return int(count)

    def cells(self, *, fate: Fate | None = None) -> dict[Cell, int]:
        """How many rows of a fate (None: undecided) each cell holds."""
        query = (
            "SELECT task_type, level, count(*) FROM trajectory WHERE fate IS ? "
            "GROUP BY task_type, level ORDER BY task_type, level"
        )
        return {(task, level): count for task, level, count in self._sql.execute(query, [fate])}

    def fates(self) -> Mapping[str, int]:
        """How many rows came to which end."""
        return Counter(dict(self._sql.execute("SELECT fate, count(*) FROM trajectory GROUP BY fate")))

    def refused(self) -> Iterator[tuple[str, str]]:
        """Id and fate of every row in neither set, in the order of ids."""
        query = "SELECT trajectory_id, fate FROM trajectory WHERE fate NOT IN (?, ?) ORDER BY trajectory_id"
        with closing(self._sql.execute(query, [Fate.RL, Fate.SFT])) as cursor:
            yield from cursor

    def addresses(self, order: str, fate: Fate) -> Iterator[Address]:
        """Where the trajectories of a fate are, in an order (see `rows`)."""
        query = f"{_ADDRESS} WHERE fate = ? ORDER BY {order}"
        with closing(self._sql.execute(query, [fate])) as cursor:
            for path, *place in cursor:
                yield Address(Path(path), *place)

    def _address(self, where: str, value: object) -> Address:
        path, *place = self._sql.execute(f"{_ADDRESS} WHERE {where}", [value]).fetchone()
        return Address(Path(path), *place)

    def _file(self, path: Path) -> int:
        if path not in self._files:
            self._files[path] = len(self._files)
            self._sql.execute("INSERT INTO file VALUES (?, ?)", [self._files[path], str(path)])
        return self._files[path]

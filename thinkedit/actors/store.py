"""The trajectory store: every episode of a run, in parquet shards, with each image kept once.

    trajectories/
      episodes-<time>-<writer>-<token>.parquet   finished shards, one row per episode
      images/ab/ab12….png                        lossless, named by the hash of their pixels
      .tmp-…                                     a writer at work, or what a killed one left

A row is a whole episode with its turns as a list of structs, so that an episode is either
there or not, and columns that a reader doesn't ask for (token ids, long texts) are never
loaded. Shards and images appear by atomic rename: any number of processes and nodes may
write to one folder, and readers need no lock.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from thinkedit.actors.images import ImageFolder, write_atomically
from thinkedit.actors.rows import PLAIN_COLUMNS, SCHEMA, SCHEMA_VERSION, VERSION_KEY, to_episode, to_row
from thinkedit.errors import DataError
from thinkedit.types import Episode

if TYPE_CHECKING:
    import pandas as pd


class TrajectoryStore:
    """Writes and reads the episodes of one folder. `append` may be called from several threads.

    Episodes are buffered until `shard_size` of them are there, or until `flush` or `close`:
    what was flushed survives the writer, so flush at least once a training step.

    Args:
        root: the folder; made on the first write.
        writer: shown in the names of the shards; need not be unique.
        shard_size: episodes per shard at most.
        keep_tokens: keep token ids and log-probabilities beside the texts.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        writer: str = "worker-0",
        *,
        shard_size: int = 512,
        keep_tokens: bool = True,
    ) -> None:
        self.root = Path(root)
        self.images = ImageFolder(self.root / "images")
        self._writer = "".join(c if c.isalnum() or c in "._-" else "_" for c in writer)
        self._shard_size = shard_size
        self._keep_tokens = keep_tokens
        self._rows: list[pa.RecordBatch] = []
        self._lock = threading.Lock()

    # --- writing

    def append(self, episode: Episode) -> None:
        """Store one finished or failed episode; its images are on disk when this returns.

        Raises:
            DataError: an image of the wrong kind, a value that its column can't hold, or
                `reference`, `notes` or `tags` that are no JSON. The episode is then left out.
        """
        row = to_row(episode, self.images, keep_tokens=self._keep_tokens)
        try:
            batch = pa.RecordBatch.from_pylist([row], schema=SCHEMA)
        except (pa.ArrowException, OverflowError) as error:
            raise DataError(f"episode {episode.uid!r} does not fit the store: {error}") from error
        with self._lock:
            self._rows.append(batch)
            if len(self._rows) >= self._shard_size:
                self._write_shard()

    def flush(self) -> None:
        """Write what is buffered as a finished shard."""
        with self._lock:
            self._write_shard()

    def close(self) -> None:
        """Flush. May be called twice; the store can be read and even written to afterwards."""
        self.flush()

    def __enter__(self) -> TrajectoryStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_shard(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_batches(self._rows, schema=SCHEMA).combine_chunks()
        buffer = BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.root.mkdir(parents=True, exist_ok=True)
        name = f"episodes-{time.time_ns():020d}-{self._writer}-{uuid.uuid4().hex[:8]}.parquet"
        write_atomically(self.root / name, buffer.getvalue(), sync=True)
        self._rows.clear()

    # --- reading

    def shards(self) -> list[Path]:
        """Finished shards, oldest first. A killed writer's leftovers are not among them."""
        return sorted(self.root.glob("episodes-*.parquet"))

    def dataset(self) -> ds.Dataset:
        """All finished shards as one Arrow dataset, for queries of your own.

        Raises:
            DataError: a shard of another schema version, or one that is no parquet file.
        """
        shards = self.shards()
        for shard in shards:
            _check_version(shard)
        return ds.dataset([str(shard) for shard in shards], schema=SCHEMA, format="parquet")

    def __len__(self) -> int:
        return int(self.dataset().count_rows()) if self.shards() else 0

    def read(self, *, tokens: bool = False, where: pc.Expression | None = None) -> Iterator[Episode]:
        """Finished episodes, oldest shard first; images are decoded only when looked at.

        Args:
            tokens: also load token ids and log-probabilities. Without, `sampling` has the
                policy versions and empty tuples.
            where: a filter over the columns of `SCHEMA`, e.g. `pc.field("step") >= 50`.
        """
        if not self.shards():
            return
        columns = SCHEMA.names if tokens else PLAIN_COLUMNS
        for batch in self.dataset().to_batches(columns=columns, filter=where, batch_size=1024):
            for row in batch.to_pylist():
                yield to_episode(row, self.images)

    def frame(self, level: Literal["turn", "episode"] = "turn") -> pd.DataFrame:
        """A table for analysis, without images and token ids.

        level "turn": a row per turn, its episode's plain columns beside it; verdicts as
        `before_semantic` and so on, raw reward terms and weights as `term/<name>`, `weight/<name>`.
        level "episode": a row per episode; `first_*` and `final_*` verdicts, `turns` as a
        count, seconds as `time/<phase>`.
        """
        from thinkedit.actors.frames import episode_frame, turn_frame

        table = self.table()
        return turn_frame(table) if level == "turn" else episode_frame(table)

    def table(self) -> pa.Table:
        """All episodes as one Arrow table, token columns left out."""
        return self.dataset().to_table(columns=PLAIN_COLUMNS)


def _check_version(shard: Path) -> None:
    try:
        metadata = pq.read_schema(shard).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{shard} is not a parquet file that can be read: {error}") from error
    version = metadata.get(VERSION_KEY)
    if version is None:
        raise DataError(f"{shard} was not written by thinkedit: it has no {VERSION_KEY.decode()!r} mark")
    if version != str(SCHEMA_VERSION).encode():
        older = int(version) < SCHEMA_VERSION
        raise DataError(
            f"{shard} has trajectory schema version {version.decode()}, "
            f"this thinkedit reads {SCHEMA_VERSION}: "
            + ("read it with the version that wrote it" if older else "update thinkedit to read it")
        )

"""A process that edits through the cache.

    python cache_worker.py ROOT LOG PAUSE_S MAX_BYTES SIBLINGS SEED...

It says "ready", waits for a line, has each seed edited by so many siblings at once, checks every
picture, and prints its cache's figures. Each real edit adds its seed to the file LOG.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from thinkedit.envs.editors.base import Editor
from thinkedit.envs.editors.cache import CachedEditor
from thinkedit.types import RGB

SOURCE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


class Logging(Editor):
    """Takes its time, and writes each edit down."""

    name = "logging"

    def __init__(self, log: Path, pause_s: float) -> None:
        self._log, self._pause_s = log, pause_s

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        with self._log.open("a") as file:
            file.write(f"{seed}\n")
        time.sleep(self._pause_s)
        return source ^ np.uint8(seed)


class Worker:
    """The process, from the test's side; killed at the end whatever happened."""

    def __init__(
        self,
        root: Path,
        seeds: list[int],
        *,
        pause_s: float = 0.0,
        max_bytes: int = 10**9,
        siblings: int = 1,
    ) -> None:
        self.log = root.with_suffix(".log")
        command = [__file__, root, self.log, pause_s, max_bytes, siblings, *seeds]
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def edits(self) -> list[int]:
        """Seeds that were edited for real, by any process."""
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def begin(self) -> Self:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self

    def end(self) -> dict[str, int]:
        """Its figures, after a good end."""
        said, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0
        figures: dict[str, int] = json.loads(said)
        return figures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate()


async def _work(editor: Editor, siblings: int, seeds: list[int]) -> None:
    for seed in seeds:
        asked = (editor.edit_async(SOURCE, "x", seed=seed) for _ in range(siblings))
        for image in await asyncio.gather(*asked):
            np.testing.assert_array_equal(image, SOURCE ^ np.uint8(seed))


def _main(root: str, log: str, pause_s: str, max_bytes: str, siblings: str, *seeds: str) -> None:
    editor = CachedEditor(Logging(Path(log), float(pause_s)), root, memory_bytes=0, disk_bytes=int(max_bytes))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    asyncio.run(_work(editor, int(siblings), [int(seed) for seed in seeds]))
    sys.stdout.write(json.dumps(asdict(editor.stats)))


if __name__ == "__main__":
    _main(*sys.argv[1:])

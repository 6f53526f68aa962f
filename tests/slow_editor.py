"""An editor in a package of its own that takes its time and keeps a record in a file."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from thinkedit.envs.editors.base import Editor
from thinkedit.envs.editors.procedural import ProceduralEditor
from thinkedit.types import RGB


@dataclass
class SlowConfig:
    delay_s: float = 0.2
    log: str = ""  # a file; a line per edit begun and per edit ended


@dataclass(frozen=True)
class Line:
    moment: str  # begin or end
    pid: int
    edit: str  # source, prompt and seed


class SlowEditor(Editor):
    """The procedural editor, slowly, in a thread that nobody can stop."""

    Config: ClassVar[type[SlowConfig]] = SlowConfig
    name = "slow"

    def __init__(self, config: SlowConfig) -> None:
        self._config, self._inner = config, ProceduralEditor()

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        edit = hashlib.sha256(source.tobytes() + f"|{prompt}|{seed}".encode()).hexdigest()
        self._note("begin", edit)
        try:
            time.sleep(self._config.delay_s)
            return self._inner.edit(source, prompt, seed=seed)
        finally:
            self._note("end", edit)

    def _note(self, moment: str, edit: str) -> None:
        if self._config.log:
            with Path(self._config.log).open("a") as file:  # one write: lines of processes don't mix
                file.write(f"{moment} {os.getpid()} {edit}\n")


def record(log: Path) -> list[Line]:
    """What was written so far."""
    lines = (line.split() for line in log.read_text().splitlines()) if log.exists() else ()
    return [Line(moment, int(pid), edit) for moment, pid, edit in lines]


def install(folder: Path) -> str:
    """Make the editor known as `slow` to processes with the returned PYTHONPATH."""
    package = folder / "slow_editor-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-editor\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[thinkedit.editors]\nslow = slow_editor:SlowEditor\n")
    places = [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(place for place in places if place)

"""`thinkedit serve-editor` as a program: started, waited for, told to stop, or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from slow_editor import install

READY = "serving "


class ServedEditor:
    """Serves on a free port of loopback, with the slow editor known beside the installed ones.

    Args:
        folder: an empty one, for the slow editor's package and the program's output.
        options: of `serve-editor`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._output = folder / "output.txt"
        environment = os.environ | {"PYTHONPATH": install(folder / "site"), "OMP_NUM_THREADS": "1"}
        code = "from thinkedit.cli import app; app()"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "serve-editor", "--port=0", *options],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        said: list[str] = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith(READY):
                self.url = line.split()[-1]
                return self
        raise AssertionError("".join(said) + self._output.read_text()[-4000:])

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """As an operator would; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


def slow(*, delay_s: float, log: Path, replicas: int) -> Sequence[str]:
    """Options that serve so many slow editors, whatever the number of cores."""
    return (
        "--editor=slow",
        f"--replicas={replicas}",
        "--cpus=0.1",
        f"editor.options.delay_s={delay_s}",
        f"editor.options.log={log}",
    )

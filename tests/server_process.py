"""`edit_server` and `chat_server` in processes of their own, to be told what to answer, stopped, killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx


class ServerProcess:
    """Killed at the end, whatever happened."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script))], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def answer(self, names: Any) -> None:
        """From now on give these answers of the server's `NAMED`, the last one again and again.

        Args:
            names: a list; for the chat server one by half.
        """
        httpx.put(f"{self.url}/answers", json=names, trust_env=False).raise_for_status()

    def calls(self) -> Any:
        """How often it was asked since; by half for the chat server."""
        return httpx.get(f"{self.url}/calls", trust_env=False).raise_for_status().json()

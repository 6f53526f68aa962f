"""What a plug-in that pays for its calls holds: it asks before each call and tells what was used."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

_BYTES_PER_TOKEN = 3  # English has 4; other scripts have a token per character of 2 or 3 bytes
_PIXELS_PER_TOKEN = 784  # Qwen2.5-VL, 28 x 28; others use more pixels
_TOKENS_PER_PICTURE = 300  # what small pictures cost all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one call uses. images: pictures shown to a judge, or made by an editor."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that somebody wants to make.

    kind: "editor" or "judge". model: as its plug-in's options name it. guess: what it will use, rather
    too much than too little.
    """

    kind: str
    model: str
    guess: Usage

    def __str__(self) -> str:
        return f"{self.kind} {self.model!r}"


@dataclass(frozen=True, slots=True)
class Permit:
    """A call that may be made now. held: money put by for it, in the ledger already."""

    ask: Ask
    held: Decimal


class Gate(Protocol):
    """Where calls are let through: `Limiter` in one process, or one for a whole Ray cluster.

    Each permit is settled or withdrawn, once. Who gives up waiting has none; his turn is lost.
    """

    async def reserve(self, ask: Ask, patience_s: float) -> Permit:
        """Wait for the call's turn, and put by what it may cost.

        Raises:
            BudgetExceeded: that is more than is left.
            ServiceTimeout: its turn would come later than in `patience_s` seconds; raised at once.
            ConfigError: it is larger than the limit of a whole minute.
        """

    def settle(self, permit: Permit, usage: Usage | None, *, failed: bool) -> None:
        """Account for a call that was made.

        Args:
            usage: None where nothing is billed.
            failed: no answer came, or an error in its place.
        """

    def withdraw(self, permit: Permit) -> None:
        """Account for a call that was not made after all."""

    def flush(self) -> None:
        """Write the ledger now."""


class Bill:
    """What is known of one call's use. Left alone, the guess is billed and the call has failed."""

    def __init__(self, guess: Usage) -> None:
        self.guess = guess
        self.usage: Usage | None = guess
        self.failed = True

    def answered(self, usage: Usage | None = None) -> None:
        """An answer came. usage: as the server tells it; None leaves the guess."""
        self.usage, self.failed = usage or self.guess, False

    def unbilled(self) -> None:
        """The server was not reached, or refused: nobody asks money for that."""
        self.usage = None


class Meter:
    """One plug-in's way through the gate.

    Args:
        gate: None lets everything through and counts nothing.
        kind: "editor" or "judge".
        patience_s: longest wait for a turn.
    """

    def __init__(self, gate: Gate | None, kind: str, patience_s: float) -> None:
        self._gate, self._kind, self._patience_s = gate, kind, patience_s

    @asynccontextmanager
    async def call(self, model: str, guess: Usage, *, patience_s: float | None = None) -> AsyncIterator[Bill]:
        """Around one call, each try for itself: waits for its turn, then bills what was used.

        Args:
            model: as in the plug-in's options.
            guess: what the call will use; it is billed unless the `Bill` is told better.
            patience_s: longest wait, where the caller knows better.

        Raises:
            BudgetExceeded, ServiceTimeout, ConfigError: see `Gate.reserve`. The call must not be made.
        """
        bill = Bill(guess)
        if self._gate is None:
            yield bill
            return
        patience_s = self._patience_s if patience_s is None else patience_s
        permit = await self._gate.reserve(Ask(self._kind, model, guess), patience_s)
        try:
            yield bill
        finally:
            self._gate.settle(permit, bill.usage, failed=bill.failed)


UNMETERED = Meter(None, "", 0.0)


def text_tokens(text: str) -> int:
    """A guess from above at the tokens of a text."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)


def picture_tokens(height: float, width: float) -> int:
    """A guess from above at the tokens of a picture that is shown to a model, in pixels."""
    return _TOKENS_PER_PICTURE + math.ceil(height * width / _PIXELS_PER_TOKEN)

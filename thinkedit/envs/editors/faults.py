"""What can go wrong with one try of a remote edit, and how often and when it is tried again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TypeVar

from thinkedit.errors import ConfigError, EditorError, ServiceError, ServiceTimeout

T = TypeVar("T")
_BUSY = (408, 425, 429)
_EXCERPT = 200  # characters of a server's own words that an error may carry


class Again(StrEnum):
    """Where a failed edit may be tried once more."""

    ANYWHERE = "anywhere"
    ELSEWHERE = "elsewhere"  # the same endpoint would answer the same
    NEVER = "never"  # the request itself is refused


class Fault(Exception):
    """One try failed.

    Attributes:
        again: where another try makes sense.
        timeout: nothing came back in time.
        sick: it speaks against the endpoint's health, as opposed to the request or the load.
        wait_s: the server asks to be left alone for so long.
        at_once: the next try need not wait, for it goes to another endpoint.
        status: of the HTTP answer, if there was one.
        free: the server did no work that it could ask money for.
    """

    at_once = free = False
    status: int | None = None

    def __init__(
        self,
        message: str,
        *,
        again: Again = Again.ANYWHERE,
        timeout: bool = False,
        sick: bool = False,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.again, self.timeout, self.sick, self.wait_s = again, timeout, sick, wait_s

    def reword(self, message: str) -> Fault:
        """Itself, saying something else."""
        self.args = (message,)
        return self


@dataclass(frozen=True, slots=True)
class Patience:
    """At most `tries` tries in `timeout_s` seconds, waits included. The wait before try k + 1 is drawn
    from the upper half of min(cap_s, base_s * 2**(k - 1)), so that failed callers don't return together."""

    tries: int
    timeout_s: float
    base_s: float
    cap_s: float
    rng: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: no try, or no time.
        """
        if self.tries < 1:
            raise ConfigError(f"tries must be at least 1, got {self.tries}")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s must be above 0, got {self.timeout_s}")
        if not 0 <= self.base_s <= self.cap_s:
            raise ConfigError(f"0 <= backoff_s <= backoff_max_s must hold, got {self.base_s}, {self.cap_s}")

    def pause_s(self, failures: int) -> float:
        """Seconds before the next try after `failures` failed ones."""
        exponent = min(failures - 1, 60)  # beyond it the cap holds anyway
        return min(self.cap_s, self.base_s * 2.0**exponent) * self.rng.uniform(0.5, 1)

    def later(self, wait_s: float) -> float:
        """Up to a tenth more, so that not all come back at the very moment a server named."""
        return wait_s * self.rng.uniform(1, 1.1)

    async def run(self, who: str, attempt: Callable[[float], Awaitable[T]]) -> T:
        """The first good result of `attempt(deadline)`; the deadline is in the loop's time.

        Raises:
            EditorError: the tries are used up, or the request was refused.
            ServiceTimeout: the time is used up, by waiting or by the last try.
        """
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        failures: list[Fault] = []
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    try:
                        return await attempt(deadline)
                    except Fault as fault:
                        failures.append(fault)
                        if fault.again is Again.NEVER or len(failures) == self.tries:
                            raise _error(who, failures) from fault
                        await self._wait(who, failures, deadline)
        except TimeoutError as error:
            raise self._late(who, failures) from error

    async def _wait(self, who: str, failures: list[Fault], deadline: float) -> None:
        last = failures[-1]
        pause = 0.0 if last.at_once else max(self.pause_s(len(failures)), self.later(last.wait_s or 0.0))
        left = deadline - asyncio.get_running_loop().time()
        if pause >= left - self.timeout_s / 20:  # a try in the last moment only makes work for nobody
            raise self._late(who, failures) from last
        await asyncio.sleep(pause)

    def _late(self, who: str, failures: list[Fault]) -> ServiceTimeout:
        last = f"; last: {failures[-1]}" if failures else ""
        return ServiceTimeout(f"{who} gave no image within {self.timeout_s:g} s{last}")


def _error(who: str, failures: list[Fault]) -> ServiceError:
    kind = ServiceTimeout if failures[-1].timeout else EditorError
    count = "" if len(failures) == 1 else f" (try {len(failures)})"
    return kind(f"{who}: {failures[-1]}{count}")


def of_status(status: int, words: str, retry_after: str | None) -> Fault:
    """The fault that an HTTP status other than 200 stands for.

    Args:
        words: what the server says about it.
        retry_after: its header of that name.
    """
    message = f"HTTP {status}" + (f": {words}" if words else "")
    wait = seconds(retry_after)
    if status in _BUSY or (status == 503 and wait is not None):
        fault = Fault(message, wait_s=wait)
    elif status >= 500:
        fault = Fault(message, sick=True, wait_s=wait)
    else:
        fault = Fault(message, again=Again.NEVER)
    fault.status, fault.free = status, True
    return fault


def seconds(retry_after: str | None) -> float | None:
    """A `Retry-After` header, which is seconds or a date (RFC 9110, 10.2.3); None if unreadable."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a year that no integer holds
        return None
    if date.tzinfo is None:  # "-0000": a date in UTC of unknown origin
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def excerpt(words: str, secret: str | None) -> str:
    """The beginning of a server's words on one line, without our own secret should it echo that."""
    if secret:
        words = words.replace(secret, "***")
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return line if len(line) <= _EXCERPT else line[:_EXCERPT] + "…"

"""Asks an OpenAI-compatible chat server, a bounded number of times, and types what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from thinkedit.errors import (
    ConfigError,
    JudgeRefused,
    JudgeUnreachable,
    JudgeUnreadable,
    ServiceError,
    ServiceTimeout,
)
from thinkedit.rewards.limits.meter import NOTHING, UNMETERED, Bill, Meter, Usage

if TYPE_CHECKING:
    import openai

T = TypeVar("T")
log = logging.getLogger(__name__)

_PASSING = frozenset({408, 409, 425, 429})  # and 5xx: the next try may meet better luck
_OUT_OF_MONEY = "insufficient_quota"
_FILTERED = ("content_filter", "content_policy", "moderation")
_SHOWN = 200  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how often. Seconds.

    tries: calls at most. request_timeout_s: one call in all; connect_timeout_s: its connection.
    backoff_s: wait before the second try, doubled before each further one, each times a random
    factor in [0.5, 1]. max_wait_s: longest wait; a server that asks for more ends the tries.
    concurrency: calls in flight, those that wait for their turn at the meter included.
    """

    tries: int = 3
    request_timeout_s: float = 60.0
    connect_timeout_s: float = 5.0
    backoff_s: float = 1.0
    max_wait_s: float = 30.0
    concurrency: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """What was read from a reply, and what it took.

    model: as the server names it. faults: what went wrong in the tries before. Tokens are of
    all tries: replies that could not be read are paid for too.
    """

    value: T
    text: str
    model: str
    faults: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class _Fault:
    """A failed try. A value and not an exception: openai's exceptions hold the request, key included."""

    kind: type[ServiceError]
    what: str
    again: bool = True
    wait_s: float = 0.0
    usage: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class _Reply:
    text: str
    model: str
    cut: bool
    usage: Usage


class ChatClient:
    """The chat route of one server. Belongs to whatever event loop it is used in.

    Args:
        key_env: the environment variable that holds the key, read when a connection is opened
            and kept nowhere here; None for a server that wants none.
    """

    def __init__(self, base_url: str, key_env: str | None, limits: Limits) -> None:
        self._base_url, self._key_env, self._limits = base_url, key_env, limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: openai.AsyncOpenAI
        self._slots: asyncio.Semaphore
        read_key(key_env)  # better told now than after an hour of training

    async def ask(
        self,
        body: Mapping[str, Any],
        read: Callable[[str], T],
        who: str,
        *,
        cut_off: bool = False,
        meter: Meter = UNMETERED,
        guess: Usage = NOTHING,
    ) -> Answer[T]:
        """Send `body` until `read` accepts a reply.

        Args:
            read: raises ValueError for a reply that is not what was asked for.
            who: for messages.
            cut_off: `read` also gets replies that the server says were cut off at max_tokens; without,
                they are unreadable, whatever they hold: it may be what the rest would have taken back.
            meter: entered for each try. guess: what one try may use, pictures included.

        Raises:
            JudgeUnreachable, JudgeRefused, JudgeUnreadable, ServiceTimeout: by the last try.
            BudgetExceeded, ServiceTimeout, ConfigError: the meter did not let a try through.
        """
        faults: list[_Fault] = []
        while True:
            result = await self._try(body, meter, guess)
            if isinstance(result, _Reply):
                try:
                    if result.cut and not cut_off:
                        raise ValueError("cut off at max_tokens")
                    value = read(result.text)
                except ValueError as error:
                    result = _unreadable(result, str(error))
                else:
                    usages = [result.usage, *(fault.usage for fault in faults)]
                    return Answer(
                        value=value,
                        text=result.text,
                        model=result.model,
                        faults=tuple(fault.what for fault in faults),
                        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
                        completion_tokens=sum(usage.completion_tokens for usage in usages),
                    )
            result = replace(result, what=self._public(result.what))
            faults.append(result)
            wait_s = self._wait_s(len(faults), result.wait_s)
            log.info("%s, try %d of %d: %s", who, len(faults), self._limits.tries, result.what)
            if not result.again or len(faults) == self._limits.tries or wait_s is None:
                history = "; ".join(fault.what for fault in faults)
                raise result.kind(
                    f"{who}: no verdict in try {len(faults)} of {self._limits.tries}: {history}"
                )
            await asyncio.sleep(wait_s)

    async def close(self) -> None:
        """Close the connections of this event loop."""
        if self._loop is asyncio.get_running_loop():
            self._loop = None
            await self._client.close()

    def _wait_s(self, tries: int, asked_s: float) -> float | None:
        """Seconds until the next try; None when the server wants more patience than we have."""
        if asked_s > self._limits.max_wait_s:
            return None
        limits = self._limits
        # The exponent is capped only so that no float overflows.
        wait_s = min(limits.backoff_s * 2.0 ** min(tries - 1, 30), limits.max_wait_s) * random.uniform(0.5, 1)
        if asked_s > 0:  # never sooner; a little later, or all who were told the same return together
            wait_s = max(wait_s, asked_s + random.uniform(0, limits.backoff_s))
        return wait_s

    async def _try(self, body: Mapping[str, Any], meter: Meter, guess: Usage) -> _Reply | _Fault:
        self._open()
        # The slot first: a turn that then waited for one would come at a moment nobody counted on.
        async with self._slots, meter.call(str(body["model"]), guess) as bill:
            return await self._send(body, bill)

    async def _send(self, body: Mapping[str, Any], bill: Bill) -> _Reply | _Fault:
        import openai

        try:
            # Not openai's own limit: it is for each read, a server that drips would never reach it.
            async with asyncio.timeout(self._limits.request_timeout_s):
                completion = await self._client.chat.completions.create(**body)
        except TimeoutError:
            return _Fault(ServiceTimeout, f"no answer within {self._limits.request_timeout_s:g} s")
        except openai.APITimeoutError as error:
            bill.unbilled()
            return _Fault(ServiceTimeout, f"{type(error.__cause__ or error).__name__}: no connection in time")
        except openai.APIStatusError as error:
            bill.unbilled()
            return self._status_fault(error)
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__ if error.__cause__ else "no connection"
            if cause == "ConnectError":  # not even begun; one that broke off may have done its work
                bill.unbilled()
            return _Fault(JudgeUnreachable, f"{cause}: {error.__cause__ or error}")
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON
            return _Fault(JudgeUnreachable, f"{type(error).__name__}: {error}")
        result = _reply(completion)
        told = result.usage.tokens > 0  # not all servers tell
        bill.answered(replace(result.usage, images=bill.guess.images) if told else None)
        return result

    def _open(self) -> None:
        """Client and slots for the running loop; those of another loop are left to it."""
        import openai

        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            limits = self._limits
            self._client = openai.AsyncOpenAI(
                base_url=self._base_url,
                api_key=read_key(self._key_env) or "none",  # openai refuses to start without
                max_retries=0,  # ours are counted
                timeout=openai.Timeout(None, connect=limits.connect_timeout_s),
            )
            self._slots = asyncio.Semaphore(limits.concurrency)
            self._loop = loop

    def _status_fault(self, error: openai.APIStatusError) -> _Fault:
        body = error.body if isinstance(error.body, Mapping) else {}
        message = body.get("message") or error.message
        wait_s = _retry_after_s(error.response.headers.get("retry-after", ""))
        asks = f" (asks for {wait_s:.0f} s)" if wait_s > self._limits.max_wait_s else ""
        what = f"HTTP {error.status_code}{asks}: {message}"
        codes = f"{error.code} {error.type} {message if error.status_code == 400 else ''}".lower()
        if 400 <= error.status_code < 404 and any(mark in codes for mark in _FILTERED):
            return _Fault(JudgeRefused, what, again=False)
        passing = error.status_code in _PASSING or error.status_code >= 500
        return _Fault(
            JudgeUnreachable,
            what,
            again=passing and _OUT_OF_MONEY not in codes,
            wait_s=wait_s,
        )

    def _public(self, text: str) -> str:
        """What may be shown of a server's words: the beginning, and not the key, which some echo."""
        if self._key_env is not None:
            text = text.replace(self._client.api_key, "<key>")  # before the cut, or half a key is left
        text = " ".join(text.split())
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def read_key(name: str | None) -> str | None:
    """The key in an environment variable; None when no variable is named.

    Raises:
        ConfigError: the variable is empty or holds what no HTTP header can.
    """
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"api_key_env: the environment variable {name} is not set; "
            "it must hold the server's key (api_key_env: null for a server without)"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"api_key_env: what the environment variable {name} holds is no key")
    return key


def _reply(completion: Any) -> _Reply | _Fault:
    """The text of a completion. openai doesn't validate what servers send, so everything is looked at."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices or getattr(choices[0], "message", None) is None:
        return _Fault(JudgeUnreachable, f"not a chat completion: {_server_error(completion)}")
    spent = getattr(completion, "usage", None)
    usage = Usage(
        prompt_tokens=_count(getattr(spent, "prompt_tokens", 0)),
        completion_tokens=_count(getattr(spent, "completion_tokens", 0)),
    )
    message, finish = choices[0].message, choices[0].finish_reason
    refusal, text = getattr(message, "refusal", None), message.content
    if refusal:
        return _Fault(JudgeRefused, f"refused: {refusal}", usage=usage)
    if finish == "content_filter":
        return _Fault(JudgeRefused, "the reply was withheld by a content filter", usage=usage)
    cut = finish == "length"
    if not isinstance(text, str) or not text.strip():
        if cut:
            return _Fault(JudgeUnreadable, "max_tokens was spent before the reply began", usage=usage)
        return _Fault(JudgeRefused, "an empty reply", usage=usage)
    return _Reply(text, str(getattr(completion, "model", "") or ""), cut, usage)


def _server_error(completion: Any) -> str:
    """What a server says that reports errors with status 200."""
    error = getattr(completion, "error", None)
    if isinstance(error, Mapping):
        error = error.get("message")
    return str(error or type(completion).__name__)


def _unreadable(reply: _Reply, why: str) -> _Fault:
    return _Fault(JudgeUnreadable, f"{why}, in the reply: {reply.text}", usage=reply.usage)


def _count(value: Any) -> int:
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0


def _retry_after_s(value: str) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date); 0 if none."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for a year that no integer holds
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())

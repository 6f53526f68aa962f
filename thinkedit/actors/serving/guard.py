"""What a request must pass before the application sees it: a token, a size and a deadline."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import suppress
from math import isfinite

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinkedit.envs.editors.wire import DEADLINE_HEADER

_LINGER_S = 2.0
# What the client still sends is not read, so the connection can't be used again.
_CLOSE = {"Connection": "close"}


class Guard:
    """ASGI middleware.

    A wrong token and a body that says it is too large are refused before one byte of it is kept; a
    body without a length is cut off where it passes the limit. Nothing is read ahead: what the
    application has not taken yet waits in the network.

    A request ends with its deadline, which the client may bring forward, and with its connection:
    the application's work is then cancelled. Web pages of other sites, which could send forms to
    loopback through a user's browser, are refused.

    Args:
        token: the bearer token asked for; None: none.
        timeout_s: for reading the body and answering.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, max_body_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._max_body_bytes, self._timeout_s = max_body_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers)
        if refusal is not None:
            await self._refuse(refusal, scope, receive, send)
            return
        limit = min(self._timeout_s, float(headers.get(DEADLINE_HEADER, self._timeout_s)))
        body, answer = _Body(receive, self._max_body_bytes), _Answer(send)
        work = asyncio.ensure_future(self._app(scope, body, answer))
        gone = asyncio.ensure_future(body.client_gone())
        try:
            await asyncio.wait({work, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            late = not (work.done() or gone.done())
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if late and not answer.begun:
            await _refused(504, "the deadline passed before the edit was made")(scope, receive, send)
        elif not work.cancelled():
            work.result()  # raises what the application raised

    async def _refuse(self, refusal: JSONResponse, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, and close when the body has been thrown away, or as much of it as is allowed.

        A connection closed over unread data is reset, and the answer may be lost with it.
        """

        async def send_open(message: Message) -> None:
            last = message["type"] == "http.response.body"
            await send({**message, "more_body": True} if last else message)

        await refusal(scope, receive, send_open)
        body = _Body(receive, self._max_body_bytes)
        with suppress(TimeoutError, HTTPException):
            async with asyncio.timeout(_LINGER_S):
                while (await body()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self, headers: Headers) -> JSONResponse | None:
        given = headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        # compare_digest takes equally long however much of the token is right
        if self._expected is not None and not hmac.compare_digest(given, self._expected):
            refused = _refused(401, "a bearer token is needed, and this is not it")
            refused.headers["WWW-Authenticate"] = "Bearer"
            return refused
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return _refused(403, "web pages of other sites may not ask")
        length = headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            return _too_large(self._max_body_bytes)
        try:
            seconds = float(headers.get(DEADLINE_HEADER, 1.0))
        except ValueError:
            seconds = float("nan")
        if not isfinite(seconds):
            return _refused(400, f"{DEADLINE_HEADER} must be a number of seconds")
        return None if seconds > 0 else _refused(504, "the deadline has passed already")


class _Body:
    """The client's side of a request: `receive` with a limit, and then whether the client is there."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive, self._left, self._max_bytes = receive, max_bytes, max_bytes
        self._ended = asyncio.Event()

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            detail = f"a body of more than {self._max_bytes} bytes"
            raise HTTPException(413, detail, headers=_CLOSE)
        if not message.get("more_body", False):
            self._ended.set()
        return message

    async def client_gone(self) -> None:
        """Returns when the client hangs up after it has sent its body."""
        await self._ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class _Answer:
    """`send`, and whether an answer has begun."""

    begun = False

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


def _too_large(max_bytes: int) -> JSONResponse:
    return _refused(413, f"a body of more than {max_bytes} bytes")


def _refused(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers=_CLOSE)

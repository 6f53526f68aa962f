"""A chat-completions server over real HTTP, on loopback, that answers as told.

As a program it answers with what `NAMED` lists; see `server_process`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Says:
    """A well-formed completion; `text` None and `refusal` are as OpenAI sends them."""

    text: str | None
    refusal: str | None = None
    finish: str = "stop"


@dataclass(frozen=True)
class Fails:
    status: int
    body: Any = field(default_factory=lambda: {"error": {"message": "out of order"}})
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """Status 200 with any body."""

    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True)
class Hangs:
    """Sends headers and then a byte now and then, or nothing at all."""

    drips: bool = False


def marks(first: object, second: object, reasoning: str = "fine") -> Says:
    return Says(json.dumps({"reasoning": reasoning, "score": [first, second]}))


Answer = Says | Fails | Raw | Hangs


NAMED: dict[str, Answer] = {
    "good": marks(8, 6),
    "hangs": Hangs(),
    "refuses": Says(None, refusal="I can't help with that."),
    "429": Fails(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.2"}),
    "429 for long": Fails(429, {"error": {"message": "come back tomorrow"}}, {"Retry-After": "86400"}),
    "unescaped quotes": Says('{"reasoning": "the sign says "OPEN" now", "score": [8, 6]}'),
    "one-element list": Says('{"reasoning": "fine", "score": [8]}'),
    "value 11": Says('{"reasoning": "fine", "score": [11, 6]}'),
    "nothing": Says(""),
}


@dataclass(frozen=True)
class Call:
    """half: "sc" for two pictures, "pq" for one."""

    half: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    at: float


class ChatServer:
    """Answers each half with its list of answers in turn, the last one again and again.

    Lists are replaced to begin anew; `calls` keeps what was asked.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.dropped = 0  # calls whose client went away
        self.in_flight = self.most_in_flight = 0
        self.answers: dict[str, list[Answer]] = {"sc": [marks(8, 6)], "pq": [marks(9, 7)]}
        self.choose: Callable[[Call], Answer] | None = None
        self.delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def asked(self, half: str) -> int:
        return sum(call.half == half for call in self.calls)

    def reset(self) -> None:
        self.calls.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_put("/answers", self._set_answers)
        app.router.add_get("/calls", self._count_calls)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    async def _set_answers(self, request: web.Request) -> web.Response:
        named = await request.json()
        self.answers = {half: [NAMED[name] for name in names] for half, names in named.items()}
        self.reset()
        return web.Response()

    async def _count_calls(self, request: web.Request) -> web.Response:
        return web.json_response({half: self.asked(half) for half in self.answers})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        pictures = [part for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
        call = Call("sc" if len(pictures) == 2 else "pq", body, dict(request.headers), monotonic())
        self.calls.append(call)
        turn = self.asked(call.half) - 1
        answers = self.answers[call.half]
        answer = self.choose(call) if self.choose else answers[min(turn, len(answers) - 1)]
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            return await self._send(request, answer)
        except (asyncio.CancelledError, ConnectionError):
            self.dropped += 1
            raise
        finally:
            self.in_flight -= 1

    async def _send(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        match answer:
            case Says(text, refusal, finish):
                message = {"role": "assistant", "content": text, "refusal": refusal}
                return web.json_response(
                    {
                        "id": "chatcmpl-0",
                        "object": "chat.completion",
                        "created": 0,
                        "model": "grader-2026",
                        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                        "usage": {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60},
                    }
                )
            case Fails(status, body, headers):
                return web.json_response(body, status=status, headers=headers)
            case Raw(body, content_type):
                return web.Response(body=body, content_type=content_type)
            case Hangs(drips):
                if not drips:
                    await asyncio.sleep(60)
                response = web.StreamResponse(headers={"Content-Type": "application/json"})
                await response.prepare(request)
                for _ in range(600):
                    await response.write(b" ")
                    await asyncio.sleep(0.1)
                return response


def main() -> None:
    with ChatServer() as server:
        print(server.base_url.removesuffix("/v1"), flush=True)  # noqa: T201 - its parent learns the port
        threading.Event().wait()


if __name__ == "__main__":
    main()

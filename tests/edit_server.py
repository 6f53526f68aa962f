"""An editor server over real HTTP, on loopback, that speaks the reference's protocol and fails as told.

As a program it edits pictures of the world and answers with what `NAMED` lists; see `server_process`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Self

import numpy as np
from aiohttp import web
from PIL import Image

from thinkedit.types import RGB


def edited(source: RGB, prompt: str, seed: int) -> RGB:
    """A deterministic edit that depends on everything: the picture shifted in colour."""
    digest = hashlib.sha256(f"{seed}|{prompt}".encode()).digest()
    return source + np.frombuffer(digest[:3], np.uint8)


def png(image: RGB) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Edits:
    """A good answer, or one with some of it changed.

    change: on the edited picture. encode: picture to file. raw: this text instead of base64.
    """

    change: Callable[[RGB], RGB] = lambda image: image
    encode: Callable[[RGB], bytes] = png
    raw: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass(frozen=True)
class Fails:
    status: int
    body: Any = field(default_factory=lambda: {"detail": "out of order"})
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """Status 200 with any body."""

    body: bytes


@dataclass(frozen=True)
class Hangs:
    pass


@dataclass(frozen=True)
class Floods:
    """Sends without end; `sent` counts bytes."""

    sent: list[int] = field(default_factory=list)


Answer = Edits | Fails | Raw | Hangs | Floods


NAMED: dict[str, Answer] = {
    "good": Edits(),
    "hangs": Hangs(),
    "500": Fails(500),
    "broken base64": Edits(raw="iVBORw0KGgo=%%%"),
    "constant": Edits(change=np.zeros_like),
    "wrong size": Edits(change=lambda image: image[:-1]),
}


@dataclass(frozen=True)
class Call:
    body: dict[str, Any]
    headers: Mapping[str, str]  # whatever the case of their names
    at: float

    @property
    def key(self) -> str:
        return self.headers["Idempotency-Key"]


class EditServer:
    """Answers edits with its list of answers in turn, the last one again and again; or as `choose` says."""

    def __init__(
        self, *answers: Answer, port: int = 0, edit: Callable[[RGB, str, int], RGB] = edited
    ) -> None:
        self.answers: list[Answer] = list(answers) or [Edits()]
        self.edit = edit
        self.choose: Callable[[], Answer] | None = None
        self.calls: list[Call] = []
        self.asked: list[str] = []  # routes of GET
        self.status: dict[str, Any] | None = {"system_ready": True, "active_workers": 1}
        self.dropped = 0  # calls whose client went away
        self.in_flight = self.most_in_flight = 0
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kill(self) -> None:
        """Drop all connections without a word, and take no more."""
        self._loop.call_soon_threadsafe(self._drop)

    def _drop(self) -> None:
        for site in self._runner.sites:
            site._server.close()
        for connection in self._runner.server.connections:
            connection.transport.abort()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/edit", self._edit)
        app.router.add_post("/v1/images/edits", self._openai)
        app.router.add_get("/health", self._health)
        app.router.add_get("/status", self._status)
        app.router.add_put("/answers", self._set_answers)
        app.router.add_get("/calls", self._count_calls)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def _health(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.json_response({"status": "healthy", "gpu_manager_ready": True})

    async def _status(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.status is None:
            return web.json_response({"detail": "no manager"}, status=503)
        return web.json_response(self.status)

    async def _set_answers(self, request: web.Request) -> web.Response:
        self.answers, self.calls = [NAMED[name] for name in await request.json()], []
        return web.Response()

    async def _count_calls(self, request: web.Request) -> web.Response:
        return web.json_response(len(self.calls))

    async def _edit(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._answered(request, body, base64.b64decode(body["image"]), self._reply)

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        form = dict(await request.post())
        image = form.pop("image")
        assert isinstance(image, web.FileField)
        return await self._answered(request, form, image.file.read(), self._openai_reply)

    async def _answered(
        self,
        request: web.Request,
        body: dict[str, Any],
        file: bytes,
        reply: Callable[[dict[str, Any], str, Edits], dict[str, Any]],
    ) -> web.StreamResponse:
        answer = self.answers[min(len(self.calls), len(self.answers) - 1)]
        if self.choose is not None:
            answer = self.choose()
        self.calls.append(Call(body, request.headers.copy(), monotonic()))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            match answer:
                case Edits():
                    await asyncio.sleep(answer.delay_s)
                    source = np.array(Image.open(io.BytesIO(file)).convert("RGB"))
                    image = answer.change(self.edit(source, body["prompt"], int(body.get("seed", 0))))
                    text = answer.raw or base64.b64encode(answer.encode(image)).decode()
                    return web.json_response(reply(body, text, answer) | dict(answer.fields))
                case Fails(status, said, headers):
                    return web.json_response(said, status=status, headers=headers)
                case Raw(data):
                    return web.Response(body=data, content_type="application/json")
                case Hangs():
                    await asyncio.sleep(60)
                case Floods():
                    return await self._flood(request, answer.sent)
            raise AssertionError("unreachable")
        except (asyncio.CancelledError, ConnectionError):
            self.dropped += 1
            raise
        finally:
            self.in_flight -= 1

    async def _flood(self, request: web.Request, sent: list[int]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(2**16))
            sent.append(2**16)

    def _reply(self, body: dict[str, Any], text: str, answer: Edits) -> dict[str, Any]:
        return {
            "success": True,
            "task_id": "1",
            "original_image": body["image"],
            "edited_image": text,
            "seed": body["seed"],
            "original_prompt": body["prompt"],
            "enhanced_prompt": None,
            "gpu_id": 0,
            "processing_time": 0.1,
            "error": None,
        }

    def _openai_reply(self, body: dict[str, Any], text: str, answer: Edits) -> dict[str, Any]:
        return {"created": 0, "data": [{"b64_json": text}]}


def main() -> None:
    from thinkedit.envs.editors.procedural import ProceduralEditor

    editor = ProceduralEditor()
    with EditServer(edit=lambda source, prompt, seed: editor.edit(source, prompt, seed=seed)) as server:
        print(server.url, flush=True)  # noqa: T201 - this is how its parent learns the port
        threading.Event().wait()


if __name__ == "__main__":
    main()

"""The studio's web application: one static page, and a JSON interface behind a guard."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from thinkedit.actors.inference import Mode, Select, ThinkingEditor
from thinkedit.actors.serving.guard import Guard
from thinkedit.envs.editors.pictures import MAX_PIXELS, decode
from thinkedit.errors import ConfigError
from thinkedit.studio.runs import Busy, Runs, StudioRun

MAX_BODY_BYTES = 32 * 2**20  # of an upload in base64: pictures up to 24 MiB
MAX_TURNS = 20
STREAM_S = 600.0  # after which a page asks again for what comes next
_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Asked(BaseModel):
    """`POST /api/runs`. image: a PNG, JPEG or WebP file in base64."""

    model_config = ConfigDict(extra="forbid")

    image: str
    instruction: Annotated[str, Field(min_length=1, max_length=2000)]
    mode: str | None = None
    select: str | None = None
    turns: Annotated[int | None, Field(ge=1, le=MAX_TURNS)] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**31)] = None


def build_app(
    thinking: ThinkingEditor,
    runs: Runs,
    *,
    token: str | None,
    hosts: frozenset[str] | None,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> ASGIApp:
    """
    Args:
        token: that the page must bring; None: none.
        hosts: names that the server answers to; None: any. On loopback it must be told its own, or any web
            page whose name points to 127.0.0.1 could use it.
    """
    api = FastAPI(openapi_url=None)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the values that FastAPI would send back: one of them is a picture.
        faults = (f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
        return JSONResponse({"detail": "; ".join(faults)}, 422)

    def found(name: str) -> StudioRun:
        try:
            return runs[name]
        except KeyError as error:
            raise HTTPException(404, "no such run, or it is forgotten") from error

    @api.get("/setup")
    async def setup() -> dict[str, Any]:
        options, config = thinking.options(), thinking.config
        about = thinking.thinker.about()
        return {
            "editor": thinking.services.editor.name,
            "thinker": about.get("model") or about.get("name"),
            "judge": thinking.services.judge.name,
            "modes": [mode for mode in Mode if mode in thinking.thinker.modes],
            "selections": list(Select),
            "accept_at": config.episode.accept_at,
            "max_turns": MAX_TURNS,
            "max_bytes": max_body_bytes // 4 * 3 - 4096,
            "mode": options.mode,
            "select": options.select,
            "turns": min(options.turns, MAX_TURNS),
            "seed": options.seed,
        }

    @api.post("/runs", status_code=201)
    async def start(asked: Asked) -> dict[str, str]:
        try:
            options = thinking.options(**asked.model_dump(exclude={"image", "instruction"}))
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error
        if not asked.instruction.strip():
            raise HTTPException(422, "the instruction is empty")
        try:
            runs.refuse_if_full()  # before the work of reading a picture
            data = base64.b64decode(asked.image, validate=True)
            source = await asyncio.to_thread(decode, data, max_pixels)
            return {"id": runs.start(source, asked.instruction, options).id}
        except (binascii.Error, ValueError) as error:
            raise HTTPException(422, f"the picture: {error}") from error
        except Busy as error:
            raise HTTPException(503, str(error), {"Retry-After": "10"}) from error

    @api.get("/runs/{name}/events")
    async def events(name: str, after: Annotated[int, Field(ge=0)] = 0) -> StreamingResponse:
        run = found(name)

        async def lines() -> AsyncIterator[str]:
            async for message in run.follow(after):
                yield (json.dumps(message) if message is not None else "") + "\n"

        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)

    @api.post("/runs/{name}/stop", status_code=204)
    async def stop(name: str) -> None:
        found(name).stop.set()

    @api.get("/runs/{name}/files/{file}")
    async def file(name: str, file: str) -> FileResponse:
        run = found(name)
        if file not in {path.name for path in run.folder.iterdir()}:
            raise HTTPException(404, "no such file")
        return FileResponse(run.folder / file)

    @api.get("/runs/{name}/all.zip")
    async def everything(name: str) -> Response:
        run = found(name)
        return Response(await asyncio.to_thread(_zip, run.folder), media_type="application/zip")

    guarded = Guard(api, token=token, max_body_bytes=max_body_bytes, timeout_s=STREAM_S)
    app = FastAPI(openapi_url=None)
    app.mount("/api", guarded)
    app.mount("/", StaticFiles(directory=_STATIC, html=True))
    return _Front(app, hosts)


class _Front:
    """ASGI middleware: refuses other names than the server's own, and adds the page's safety headers."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._hosts is not None and _host(Headers(scope=scope)) not in self._hosts:
            refused = JSONResponse({"detail": "this server answers to its own name only"}, 421)
            await refused(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.lower().encode(), value.encode()) for key, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self._app(scope, receive, with_headers)


def _host(headers: Headers) -> str | None:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return None


def _zip(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored: pictures are compressed already
        for path in sorted(folder.iterdir()):
            archive.write(path, f"thinkedit-{folder.name}/{path.name}")
    return buffer.getvalue()

"""The HTTP face of an editor: the reference's routes, and one that carries pictures as they are.

`POST /edit` and `/edit-upload`, `GET /health` and `/status` are those of the EditThinker reference.
`POST /edit-binary` names the source by its SHA-256 and answers with a PNG file; a source that the server
doesn't hold is answered with status 409, sent once with `PUT /images/DIGEST`, and asked for again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import random
import time
import uuid
from collections import OrderedDict
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Form, HTTPException, Path, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp

from thinkedit.actors.serving.guard import Guard
from thinkedit.actors.serving.service import EditService
from thinkedit.actors.serving.work import EditorBroke, EditorBusy, ReplicasLost
from thinkedit.envs.editors import wire
from thinkedit.envs.editors.pictures import MAX_PIXELS, decode, encode_png
from thinkedit.errors import ServiceError, ServiceTimeout
from thinkedit.types import RGB

SOURCES_BYTES = 512 * 2**20  # of the decoded sources that are held for `/edit-binary`
MAX_BODY_BYTES = 64 * 2**20

_STATUS: dict[type[ServiceError], int] = {
    ServiceTimeout: 504,
    EditorBroke: 500,
    ReplicasLost: 500,
    EditorBusy: 503,
}
_FAILED = 422  # what the editor itself refuses: it would again, and the server is well

_PROMPT, _SEED = {"max_length": 20_000}, {"ge": 0, "lt": 2**63}
_DIGEST = "^[0-9a-f]{64}$"


class EditRequest(BaseModel):
    """`POST /edit`. Fields that it doesn't know are named in the answer's `ignored`.

    image: base64, without the prefix of a data URI. seed: None for a random one.
    """

    model_config = ConfigDict(extra="allow")

    image: str | None = None
    prompt: Annotated[str, Field(**_PROMPT)]
    seed: Annotated[int | None, Field(**_SEED)] = None
    # The reference's servers let a language model rewrite the prompt; this one never does.
    enhance_prompt: Literal[False] = False


class BinaryRequest(BaseModel):
    """`POST /edit-binary`. source: the SHA-256 of the picture's file, 64 hex digits."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[str, Field(pattern=_DIGEST)]
    prompt: Annotated[str, Field(**_PROMPT)]
    seed: Annotated[int, Field(**_SEED)]


class Sources:
    """Decoded pictures by the hash of their file; those used least lately go when there is no room.

    Args:
        room: bytes of all together.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._pictures: OrderedDict[str, RGB] = OrderedDict()

    def get(self, digest: str) -> RGB | None:
        if digest in self._pictures:
            self._pictures.move_to_end(digest)
        return self._pictures.get(digest)

    def put(self, digest: str, picture: RGB) -> None:
        if digest in self._pictures:
            return
        self._pictures[digest] = picture
        self._room -= picture.nbytes
        while self._room < 0 and len(self._pictures) > 1:
            self._room += self._pictures.popitem(last=False)[1].nbytes


def build_front(
    service: EditService,
    *,
    gpus: float,
    token: str | None = None,
    timeout_s: float = 120.0,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> ASGIApp:
    """The application.

    Args:
        gpus: of one replica.
        timeout_s: for one request; clients may ask for less.
    """
    app = FastAPI(title="thinkedit editor")
    sources = Sources(SOURCES_BYTES)

    async def decoded(file: bytes) -> RGB:
        try:
            return await asyncio.to_thread(decode, file, MAX_PIXELS)
        except ValueError as error:
            raise HTTPException(400, f"image: {error}") from error

    async def edited(source: RGB, prompt: str, seed: int) -> bytes:
        """A PNG file."""
        try:
            picture = await service.edit(source, prompt, seed)
        except ServiceError as error:
            headers = {}
            if isinstance(error, EditorBusy):
                headers["Retry-After"] = str(await service.retry_after_s())
            raise HTTPException(_STATUS.get(type(error), _FAILED), str(error), headers) from error
        return await asyncio.to_thread(encode_png, picture)

    async def answer(file: bytes, prompt: str, seed: int | None, ignored: list[str]) -> JSONResponse:
        began = time.monotonic()
        seed = random.randrange(2**31) if seed is None else seed
        png = await edited(await decoded(file), prompt, seed)
        return JSONResponse(
            {
                "success": True,
                "task_id": uuid.uuid4().hex,
                "original_image": base64.b64encode(file).decode("ascii"),
                "edited_image": base64.b64encode(png).decode("ascii"),
                "seed": seed,
                "original_prompt": prompt,
                "enhanced_prompt": None,
                "gpu_id": None,  # Ray's business
                "processing_time": time.monotonic() - began,
                "error": None,
                # steps and guidance are the server's own, the same for all who ask
                "ignored": ignored,
            }
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the values that FastAPI would send back: they may be whole pictures.
        return JSONResponse({"detail": [{k: e[k] for k in ("loc", "msg")} for e in error.errors()]}, 422)

    @app.get("/")
    async def banner() -> dict[str, str]:
        return {"message": "thinkedit editor", "docs": "/docs"}

    @app.get("/health")
    async def health() -> JSONResponse:
        ill = await service.ill()
        said = {
            "status": "unhealthy" if ill else "healthy",
            "gpu_manager_ready": not ill,
            "timestamp": time.time(),
        }
        return JSONResponse(said | ({"detail": ill} if ill else {}), 503 if ill else 200)

    @app.get("/status")
    async def status() -> dict[str, Any]:
        load = await service.load()
        if not load.replicas:
            raise HTTPException(503, "no replica is running")
        return {
            "active_workers": load.replicas,
            "task_queue_size": load.waiting,
            "result_queue_size": 0,  # an answer goes out when it is made
            "pending_tasks": load.waiting + load.running,
            "total_gpus": load.replicas * gpus,
            "system_ready": True,
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/edit")
    async def edit(asked: EditRequest) -> JSONResponse:
        if not asked.image:
            raise HTTPException(400, "image: there is none")
        try:
            file = base64.b64decode(asked.image, validate=True)
        except (binascii.Error, ValueError) as error:
            raise HTTPException(400, "image: no base64 (a data URI's prefix must be left out)") from error
        return await answer(file, asked.prompt, asked.seed, sorted(asked.model_extra or ()))

    @app.post("/edit-upload")
    async def edit_upload(
        request: Request,
        image_file: UploadFile,
        prompt: Annotated[str, Form(**_PROMPT)],
        seed: Annotated[int | None, Form(**_SEED)] = None,
        enhance_prompt: Annotated[Literal["false"], Form()] = "false",
    ) -> JSONResponse:
        known = {"image_file", "prompt", "seed", "enhance_prompt"}
        return await answer(await image_file.read(), prompt, seed, sorted(set(await request.form()) - known))

    @app.post("/edit-binary")
    async def edit_binary(asked: BinaryRequest) -> Response:
        source = sources.get(asked.source)
        if source is None:
            raise HTTPException(wire.UNKNOWN_IMAGE, f"unknown image: PUT it to /images/{asked.source}")
        return Response(await edited(source, asked.prompt, asked.seed), media_type="image/png")

    @app.put("/images/{digest}")
    async def hold(request: Request, digest: Annotated[str, Path(pattern=_DIGEST)]) -> dict[str, str]:
        file = await request.body()
        if hashlib.sha256(file).hexdigest() != digest:
            raise HTTPException(422, "the file has another SHA-256 than it was sent under")
        sources.put(digest, await decoded(file))
        return {"source": digest}

    return Guard(app, token=token, max_body_bytes=max_body_bytes, timeout_s=timeout_s)

"""An editor behind any service that offers OpenAI's `images/edits`, through the official client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from thinkedit.envs.editors import faults, wire
from thinkedit.envs.editors.faults import Again, Fault, Patience
from thinkedit.envs.editors.http import check_url
from thinkedit.envs.editors.pictures import Resize, decode, encode_png, fit, most_pixels, scale
from thinkedit.envs.editors.remote import RemoteEditor, secret_from
from thinkedit.envs.services import checked_edit
from thinkedit.errors import ConfigError, EditorError, UnknownName
from thinkedit.rewards.limits.meter import Usage, picture_tokens, text_tokens
from thinkedit.types import RGB

if TYPE_CHECKING:
    import openai

Box = tuple[int, int, int, int]
"""left, top, right, bottom; right and bottom exclusive."""

_IMAGE_TOKENS = 6300  # a guess from above at one edited picture: gpt-image-1's largest take 6240
_RESERVED = frozenset({"image", "model", "n", "prompt", "seed", "size", "stream"})


@dataclass
class OpenAIImagesConfig:
    """Which service and model, what it is asked with, and how patient we are with it."""

    model: str = "gpt-image-1"
    base_url: str | None = None  # None: the client's default, which OPENAI_BASE_URL can change
    api_key_env: str = "OPENAI_API_KEY"  # environment variable with the key
    sizes: list[str] = field(default_factory=lambda: ["1024x1024", "1536x1024", "1024x1536"])
    resize: str = "aspect"  # without sizes: never, rounded or aspect, as for the http editor
    fields: dict[str, Any] = field(default_factory=dict)  # e.g. quality: high, or a server's own fields
    send_seed: bool = False  # for servers that take one; OpenAI's refuses it
    revision: str = "1"  # of the served model; part of the cache key
    timeout_s: float = 300.0  # one edit: waiting, all tries and pauses
    try_timeout_s: float = 180.0  # one request
    tries: int = 4
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    concurrency: int = 8  # requests under way


class OpenAIImagesEditor(RemoteEditor):
    """Asks `images.edit` for one image.

    The service knows a few sizes only: the source is scaled into the one whose shape comes nearest and
    its borders are drawn out to fill it; of the answer that part is cut out and scaled back, so objects
    stay where they were. With no `sizes` the source goes as it is.

    The same seed gives other pixels each time (OpenAI takes none): repeatable only through the cache.
    """

    Config: ClassVar[type[OpenAIImagesConfig]] = OpenAIImagesConfig
    metered = True
    deterministic = False

    def __init__(self, config: OpenAIImagesConfig) -> None:
        """
        Raises:
            ConfigError: the key's variable is not set, a value out of range, openai is missing.
            UnknownName: no such resize policy.
        """
        super().__init__()
        self._sizes = _check(config)
        self.name, self.revision = f"openai/{config.model}", config.revision
        self._config = config
        self._resize = Resize(config.resize)
        self._patience = Patience(config.tries, config.timeout_s, config.backoff_s, config.backoff_max_s)
        self._key = secret_from(config.api_key_env, "api_key_env")
        self._openai = _openai()
        self._connection: tuple[openai.AsyncOpenAI, asyncio.Semaphore] | None = None

    def settings(self) -> Mapping[str, Any]:
        return {
            "model": self._config.model,
            "sizes": list(self._config.sizes),
            "resize": str(self._resize),
            "fields": dict(self._config.fields),
            "send_seed": self._config.send_seed,
        }

    async def _edit(self, source: RGB, prompt: str, seed: int) -> RGB:
        prompt = wire.sendable(prompt)
        canvas, box = await asyncio.to_thread(frame, source, self._sizes)
        png = await asyncio.to_thread(encode_png, canvas)
        settings = {**self.settings(), "revision": self.revision}
        options = self._options(canvas, seed)
        options["extra_headers"] = {
            wire.IDEMPOTENCY_HEADER: wire.idempotency_key(self.name, settings, source, prompt, seed)
        }
        limit = wire.answer_limit(len(png), most_pixels(canvas))
        prompt_tokens = text_tokens(prompt) + picture_tokens(*canvas.shape[:2])
        guess = Usage(prompt_tokens=prompt_tokens, completion_tokens=_IMAGE_TOKENS, images=1)
        time = asyncio.get_running_loop().time

        async def attempt(deadline: float) -> RGB:
            _, free = self._connected()
            # The slot first: a turn that then waited for one would come at a moment nobody counted on.
            async with (
                free,
                self.meter.call(self._config.model, guess, patience_s=deadline - time()) as bill,
            ):
                timeout_s = min(self._config.try_timeout_s, deadline - time())
                try:
                    answer = await self._answer(png, prompt, options, timeout_s, limit)
                except Fault as fault:
                    if fault.free:
                        bill.unbilled()
                    raise
                bill.answered(await asyncio.to_thread(_usage, answer))
            return await asyncio.to_thread(self._image, answer, source, canvas, box)

        return await self._patience.run(f"editor {self.name!r}", attempt)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            client, _ = self._connection
            self._connection = None
            await client.close()

    def _options(self, canvas: RGB, seed: int) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self._sizes:
            options["size"] = f"{canvas.shape[1]}x{canvas.shape[0]}"
        extra = dict(self._config.fields)
        if self._config.send_seed:
            extra["seed"] = seed
        if extra:
            options["extra_body"] = extra
        return options

    async def _answer(
        self, png: bytes, prompt: str, options: Mapping[str, Any], timeout_s: float, limit: int
    ) -> bytes:
        """The body of a good answer.

        Raises:
            Fault: unreachable, refused, late, or more than `limit` bytes. From none of openai's exceptions:
                they hold the request, and a traceback would show the key in it.
        """
        client, _ = self._connected()
        image = ("source.png", png, "image/png")
        ask = client.images.with_streaming_response.edit  # streaming: to stop at the limit
        body = bytearray()
        try:
            async with (
                asyncio.timeout(timeout_s),
                ask(model=self._config.model, image=image, prompt=prompt, n=1, **options) as response,
            ):
                async for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > limit:
                        raise Fault(f"an answer of more than {limit} bytes", again=Again.NEVER)
        except (TimeoutError, self._openai.APITimeoutError):
            raise Fault(f"no answer within {timeout_s:.3g} s", timeout=True) from None
        except self._openai.APIStatusError as error:
            raise self._refusal(error) from None
        except self._openai.APIConnectionError as error:
            fault = Fault(f"connection failed: {error.__cause__ or error}")
            fault.free = type(error.__cause__).__name__ == "ConnectError"  # of httpx: not even begun
            raise fault from None
        return bytes(body)

    def _refusal(self, error: openai.APIStatusError) -> Fault:
        # a code such as moderation_blocked says more than the words
        said = f"{error.code}: {error.message}" if error.code else error.message
        words = faults.excerpt(said, self._key)
        fault = faults.of_status(error.status_code, words, error.response.headers.get("Retry-After"))
        if error.code == "insufficient_quota":  # a 429 that no waiting mends
            fault.again = Again.NEVER
        return fault

    def _image(self, answer: bytes, source: RGB, canvas: RGB, box: Box) -> RGB:
        try:
            (only,) = json.loads(answer)["data"]
            text, url = only.get("b64_json"), only.get("url")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Fault("the answer holds no single image") from error
        if not isinstance(text, str) or not text:
            raise Fault(
                "the answer holds no image in base64, and a URL is not followed "
                "(try fields: {response_format: b64_json})",
                # One that answers with a URL would do so, and bill, each time.
                again=Again.NEVER if url else Again.ANYWHERE,
            )
        try:
            image = fit(decode(wire.from_base64(text), most_pixels(canvas)), canvas, self._resize)
            left, top, right, bottom = box
            image = scale(np.ascontiguousarray(image[top:bottom, left:right]), source.shape[1::-1])
            checked_edit(image, source, self.name)
        except (ValueError, EditorError) as error:
            raise Fault(f"the edited image: {error}") from error
        return image

    def _connected(self) -> tuple[openai.AsyncOpenAI, asyncio.Semaphore]:
        if self._connection is None:
            client = self._openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._config.base_url,
                max_retries=0,  # ours are bounded by the deadline
                timeout=None,
            )
            self._connection = client, asyncio.Semaphore(self._config.concurrency)
        return self._connection


def frame(source: RGB, sizes: list[tuple[int, int]]) -> tuple[RGB, Box]:
    """The source on a canvas of one of the sizes, and where on it.

    Args:
        sizes: (width, height); none leaves the source as it is.
    """
    height, width = source.shape[:2]
    if not sizes:
        return source, (0, 0, width, height)
    wide, high = min(sizes, key=lambda size: abs(np.log(size[0] / size[1] * height / width)))
    factor = min(wide / width, high / height)
    inner_wide, inner_high = (
        max(1, min(wide, round(width * factor))),
        max(1, min(high, round(height * factor))),
    )
    left, top = (wide - inner_wide) // 2, (high - inner_high) // 2
    margins = ((top, high - inner_high - top), (left, wide - inner_wide - left), (0, 0))
    canvas = np.pad(scale(source, (inner_wide, inner_high)), margins, mode="edge")
    return canvas, (left, top, left + inner_wide, top + inner_high)


def _usage(answer: bytes) -> Usage | None:
    """What the service says it used; None where it says nothing."""
    try:
        told = json.loads(answer)["usage"]
        prompt_tokens, completion_tokens = int(told["input_tokens"]), int(told["output_tokens"])
    except (ValueError, TypeError, KeyError):
        return None
    return Usage(prompt_tokens=max(0, prompt_tokens), completion_tokens=max(0, completion_tokens), images=1)


def _openai() -> ModuleType:
    try:
        import openai
    except ImportError as error:
        raise ConfigError("the openai editor needs its client: pip install 'thinkedit[serve]'") from error
    return openai


def _check(config: OpenAIImagesConfig) -> list[tuple[int, int]]:
    """The sizes, if all is well."""
    if config.base_url is not None:
        check_url(config.base_url)
    if config.resize not in list(Resize):
        raise UnknownName("resize policy", config.resize, list(Resize))
    reserved = _RESERVED & config.fields.keys()
    if reserved:
        raise ConfigError(f"fields: {', '.join(sorted(reserved))} can't be set here")
    if config.concurrency < 1 or not config.try_timeout_s > 0:
        raise ConfigError("concurrency must be at least 1, try_timeout_s above 0")
    return [_size(text) for text in config.sizes]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ConfigError(f"sizes: {text!r} must look like 1024x1024")
    return int(width), int(height)

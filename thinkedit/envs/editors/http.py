"""An editor behind HTTP, at one or several servers that speak the reference's protocol (see `wire`)."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from thinkedit.envs.editors import faults, wire
from thinkedit.envs.editors.endpoints import Endpoint, Pool
from thinkedit.envs.editors.faults import Again, Fault, Patience
from thinkedit.envs.editors.pictures import Resize, decode, encode_png, fit, most_pixels
from thinkedit.envs.editors.remote import RemoteEditor, secret_from
from thinkedit.envs.services import checked_edit
from thinkedit.errors import ConfigError, EditorError, ServiceError, UnknownName
from thinkedit.rewards.limits.meter import Bill, Usage
from thinkedit.types import RGB

if TYPE_CHECKING:
    import httpx

_ERROR_BYTES = 2**16  # of an error's body; more is not read
_PROBE_STEPS = 2  # a probe must reach the model, not finish a picture
_PROBE_PROMPT = "make the picture a little brighter"


@dataclass
class HTTPConfig:
    """Where the servers are, what they are asked with, and how patient we are with them."""

    urls: list[str] = field(default_factory=list)  # e.g. http://127.0.0.1:8005, one per server
    model: str = "plain"  # a preset of request fields: thinkedit/envs/editors/wire.py
    steps: int | None = None  # None: the preset's
    fields: dict[str, Any] = field(default_factory=dict)  # request fields, on top of the preset's
    binary: bool = False  # each source is sent once, pictures without base64: `thinkedit serve-editor` only
    resize: str | None = None  # never, rounded or aspect; None: the preset's
    revision: str = "1"  # of the served weights; part of the cache key
    deterministic: bool = False  # every server gives equal pixels for equal seeds
    token_env: str | None = None  # environment variable with the bearer token
    timeout_s: float = 300.0  # one edit: waiting for a free server, all tries and pauses
    try_timeout_s: float = 120.0  # one request
    connect_timeout_s: float = 5.0
    tries: int = 4  # requests for one edit at most, hedges not counted
    backoff_s: float = 0.5  # before the second try of the same server; doubles with each
    backoff_max_s: float = 30.0
    concurrency: int = 8  # requests under way per server
    breaker_failures: int = 3  # in a row, before a server is left alone
    breaker_rest_s: float = 10.0  # before it is probed with a small edit
    hedge_after_s: float | None = None  # ask a second server too so long after the first; None: never


@dataclass(slots=True, eq=False)
class _Job:
    """One edit on its way, with what its tries found out.

    png: the source's file, where the body only names it. tried: endpoints that failed it.
    barred: those that would fail it again. sent: done when the meter lets a request of this try through.
    """

    source: RGB
    seed: int
    body: bytes
    key: str
    png: bytes = b""
    deadline: float = 0.0
    sent: asyncio.Future[None] | None = None
    tried: set[Endpoint] = field(default_factory=set)
    barred: set[Endpoint] = field(default_factory=set)


class HTTPEditor(RemoteEditor):
    """Asks the least busy healthy server, tries again where that makes sense, and checks each answer.

    An answer counts only if it says success, names the seed asked for, and holds a readable picture
    of the source's size that is not all one colour.
    """

    Config: ClassVar[type[HTTPConfig]] = HTTPConfig
    metered = True

    def __init__(self, config: HTTPConfig) -> None:
        """
        Raises:
            ConfigError: no usable URL, a value out of range, a token variable that is not set,
                httpx is missing.
            UnknownName: a preset or resize policy that is not in the tables.
        """
        super().__init__()
        _check(config)
        preset = wire.PRESETS[config.model]
        self.name = config.model if config.model != "plain" else "http"
        self.revision, self.deterministic = config.revision, config.deterministic
        self._config = config
        self._steps = preset.steps if config.steps is None else config.steps
        self._fields = {**preset.fields, **config.fields}
        self._resize = preset.resize if config.resize is None else Resize(config.resize)
        self._patience = Patience(config.tries, config.timeout_s, config.backoff_s, config.backoff_max_s)
        self._try_s = min(config.try_timeout_s, config.timeout_s)
        self._token = secret_from(config.token_env, "token_env")
        self._httpx = _httpx()
        self._connection: tuple[httpx.AsyncClient, Pool] | None = None
        self._last_good: RGB | None = None  # what probes are made with: any editor takes its own pictures
        self._last_asked: RGB | None = None

    def settings(self) -> Mapping[str, Any]:
        return {
            "model": self._config.model,
            "steps": self._steps,
            "fields": self._fields,
            "resize": str(self._resize),
        }

    def check(self, source: RGB) -> dict[str, str]:
        """Probe every endpoint: its `/health`, its `/status`, and one small edit of `source`.

        Returns:
            What is wrong with each, by URL; empty for a healthy one.
        """
        return self._background.run(self._check(source))

    async def _check(self, source: RGB) -> dict[str, str]:
        self._last_asked = source
        _, pool = self._connected()

        async def said(endpoint: Endpoint) -> str:
            try:
                await self._probe(endpoint)
            except Fault as fault:
                return str(fault)
            return ""

        answers = await asyncio.gather(*(said(endpoint) for endpoint in pool.endpoints))
        return {endpoint.url: answer for endpoint, answer in zip(pool.endpoints, answers, strict=True)}

    async def _edit(self, source: RGB, prompt: str, seed: int) -> RGB:
        self._last_asked = source
        job = await asyncio.to_thread(self._job, source, wire.sendable(prompt), seed)

        async def attempt(deadline: float) -> RGB:
            job.deadline = deadline
            return await self._attempt(job)

        image = await self._patience.run(f"editor {self.name!r}", attempt)
        self._last_good = source
        return image

    async def _disconnect(self) -> None:
        if self._connection is not None:
            client, pool = self._connection
            self._connection = None
            await pool.close()
            await client.aclose()

    def _job(self, source: RGB, prompt: str, seed: int, steps: int | None = None) -> _Job:
        steps = self._steps if steps is None else steps
        png = encode_png(source)
        if self._config.binary:
            body = wire.binary_body(png, prompt, seed)
        else:
            body = wire.request_body(png, prompt, seed, steps, self._fields)
        key = wire.idempotency_key(
            self.name, {**self.settings(), "steps": steps, "revision": self.revision}, source, prompt, seed
        )
        return _Job(source, seed, body, key, png if self._config.binary else b"")

    async def _attempt(self, job: _Job) -> RGB:
        """One try, with its hedge if there is one."""
        _, pool = self._connected()
        endpoint = await pool.take(job.deadline, avoid=job.tried, barred=job.barred)
        job.sent = asyncio.get_running_loop().create_future()
        races = {asyncio.create_task(self._ask(endpoint, job)): endpoint}
        try:
            return await self._first_good(races, job)
        except Fault as fault:
            if len(job.barred) == len(pool.endpoints):
                fault.again = Again.NEVER
            fault.at_once = pool.another(job.tried)
            fault.wait_s = None  # the pool sees to it, and another server may be free before
            raise
        finally:
            for task in races:
                task.cancel()
            await asyncio.gather(*races, return_exceptions=True)
            for endpoint in races.values():
                pool.release(endpoint)

    async def _first_good(self, races: dict[asyncio.Task[RGB], Endpoint], job: _Job) -> RGB:
        """The first image; the last fault if there is none. Adds the hedge to `races`."""
        pending, patience = set(races), self._config.hedge_after_s
        fault: BaseException | None = None
        if patience is not None:
            # A request that waits for its turn is not slow; a hedge would only wait behind it, and be paid.
            assert job.sent is not None, "each try makes its own"
            either: set[asyncio.Future[Any]] = {*pending, job.sent}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                fault = task.exception()
                if fault is None:
                    return task.result()
            if patience is not None:
                patience = None
                hedge = None if done else self._hedge(set(races.values()), job)
                if hedge is not None:
                    races |= hedge
                    pending |= hedge.keys()
        assert fault is not None, "every task ended without an image"
        raise fault

    def _hedge(self, asked: set[Endpoint], job: _Job) -> dict[asyncio.Task[RGB], Endpoint] | None:
        _, pool = self._connected()
        endpoint = pool.take_now(barred=job.barred | asked)
        return None if endpoint is None else {asyncio.create_task(self._ask(endpoint, job)): endpoint}

    async def _ask(self, endpoint: Endpoint, job: _Job) -> RGB:
        """One request. What comes of it is counted for or against the endpoint."""
        _, pool = self._connected()
        async with self._metered(job.deadline) as bill:
            if job.sent is not None and not job.sent.done():
                job.sent.set_result(None)
            return await self._counted(endpoint, job, pool, bill)

    async def _counted(self, endpoint: Endpoint, job: _Job, pool: Pool, bill: Bill) -> RGB:
        left = job.deadline - asyncio.get_running_loop().time()
        try:
            # a moment before the edit's own deadline, so that silence is counted against the endpoint
            image = await self._request(endpoint, job, min(self._try_s, left - min(0.05, left / 40)), bill)
        except Fault as fault:
            # a request that began shortly before the deadline says nothing about the server
            fault.sick = fault.sick and not (fault.timeout and left < 0.9 * self._try_s)
            job.tried.add(endpoint)
            if fault.again is Again.ELSEWHERE:
                job.barred.add(endpoint)
            pool.failed(endpoint, fault)
            raise
        pool.succeeded(endpoint)
        return image

    def _metered(self, deadline: float) -> AbstractAsyncContextManager[Bill]:
        """Around each request, probes and hedges too. deadline: loop time before which its turn must come."""
        left = deadline - asyncio.get_running_loop().time()
        return self.meter.call(self._config.model, Usage(images=1), patience_s=left)

    async def _request(self, endpoint: Endpoint, job: _Job, timeout_s: float, bill: Bill) -> RGB:
        limit = wire.answer_limit(len(job.body), most_pixels(job.source))
        headers = {
            "Content-Type": "application/json",
            wire.IDEMPOTENCY_HEADER: job.key,
            wire.DEADLINE_HEADER: f"{timeout_s:.3f}",
        }
        try:
            async with asyncio.timeout(timeout_s):
                if self._config.binary:
                    answer = await self._binary_answer(endpoint, job, headers, limit)
                else:
                    answer = await self._answer("POST", f"{endpoint.url}/edit", headers, job.body, limit)
                bill.answered()
                return await asyncio.to_thread(self._image, answer, job)
        except TimeoutError as error:
            raise Fault(
                f"{endpoint.url} gave no answer within {timeout_s:.3g} s", timeout=True, sick=True
            ) from error
        except Fault as fault:
            if fault.free:
                bill.unbilled()
            raise fault.reword(f"{endpoint.url}: {self._excerpt(fault)}")  # noqa: B904 - it is the same

    async def _binary_answer(
        self, endpoint: Endpoint, job: _Job, headers: Mapping[str, str], limit: int
    ) -> bytes:
        """As `_answer`, sending the source first if the server doesn't hold it."""
        url = f"{endpoint.url}/edit-binary"
        try:
            return await self._answer("POST", url, headers, job.body, limit)
        except Fault as fault:
            if fault.status != wire.UNKNOWN_IMAGE:
                raise
        there = f"{endpoint.url}/images/{wire.image_digest(job.png)}"
        await self._answer("PUT", there, {"Content-Type": "image/png"}, job.png, _ERROR_BYTES)
        return await self._answer("POST", url, headers, job.body, limit)

    def _image(self, answer: bytes, job: _Job) -> RGB:
        data = answer if self._config.binary else wire.edited_image(answer, job.seed)
        try:
            image = fit(decode(data, most_pixels(job.source)), job.source, self._resize)
            checked_edit(image, job.source, self.name)
        except (ValueError, EditorError) as error:
            raise Fault(f"edited_image: {error}", again=Again.ELSEWHERE, sick=True) from error
        return image

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, limit: int
    ) -> bytes:
        """The body of a 200 answer.

        Raises:
            Fault: unreachable, another status, or more than `limit` bytes.
        """
        client, _ = self._connected()
        try:
            async with client.stream(method, url, headers=dict(headers), content=body) as response:
                good = response.status_code == 200
                answer = await _read(response, limit if good else _ERROR_BYTES)
        except self._httpx.HTTPError as error:
            fault = Fault(f"{type(error).__name__}: {error}", sick=True)
            fault.free = isinstance(error, self._httpx.ConnectError | self._httpx.ConnectTimeout)
            raise fault from error
        if not good:
            words = _words(answer)
            raise faults.of_status(response.status_code, words, response.headers.get("Retry-After"))
        if answer is None:
            raise Fault(f"an answer of more than {limit} bytes", again=Again.ELSEWHERE, sick=True)
        return answer

    async def _probe(self, endpoint: Endpoint) -> None:
        """Says it that it is ready, and does it edit? A new seed each time, so that no cache answers.

        Raises:
            Fault: it does not.
        """
        source = self._last_good if self._last_good is not None else self._last_asked
        assert source is not None, "probes follow edits"
        steps = None if self._steps is None else min(self._steps, _PROBE_STEPS)
        seed = random.randrange(2**31)
        job = await asyncio.to_thread(self._job, source, _PROBE_PROMPT, seed, steps)
        await self._says_ready(endpoint, "/health", "gpu_manager_ready")
        await self._says_ready(endpoint, "/status", "system_ready")
        try:
            async with self._metered(asyncio.get_running_loop().time() + self._try_s) as bill:
                await self._request(endpoint, job, self._try_s, bill)
        except ServiceError as error:  # the limits of the run
            raise Fault(str(error)) from error

    async def _says_ready(self, endpoint: Endpoint, route: str, flag: str) -> None:
        """A server without such a route says nothing; the edit will tell."""
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                answer = await self._answer("GET", endpoint.url + route, {}, None, _ERROR_BYTES)
            record = json.loads(answer)
        except TimeoutError as error:
            raise Fault(f"{endpoint.url}{route} gave no answer", timeout=True, sick=True) from error
        except ValueError as error:
            raise Fault(f"{endpoint.url}{route} gave no JSON", sick=True) from error
        except Fault as fault:
            if fault.status in (404, 405):
                return
            raise fault.reword(f"{endpoint.url}{route}: {self._excerpt(fault)}")  # noqa: B904 - it is the same
        if isinstance(record, dict) and record.get(flag) is False:
            raise Fault(f"{endpoint.url}{route} says that it is not ready", sick=True)

    def _connected(self) -> tuple[httpx.AsyncClient, Pool]:
        if self._connection is None:
            config = self._config
            headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            client = self._httpx.AsyncClient(
                headers=headers,
                # our own deadline bounds reading and writing
                timeout=self._httpx.Timeout(None, connect=config.connect_timeout_s),
                limits=self._httpx.Limits(max_connections=None, max_keepalive_connections=None),
                trust_env=False,  # servers of a cluster are not behind the way out of it
            )
            pool = Pool(
                [url.rstrip("/") for url in config.urls],
                self._probe,
                limit=config.concurrency,
                trip_after=config.breaker_failures,
                rest_s=config.breaker_rest_s,
            )
            self._connection = client, pool
        return self._connection

    def _excerpt(self, fault: Fault) -> str:
        return faults.excerpt(str(fault), self._token)


async def _read(response: httpx.Response, limit: int) -> bytes | None:
    """The body; None if it is longer than `limit`, of which no more is read."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _words(body: bytes | None) -> str:
    """What an error's body says: FastAPI's `detail`, the reference's `error`, or its text."""
    text = (body or b"").decode("utf-8", "replace")
    try:
        record = json.loads(text)
    except ValueError:
        return text
    if not isinstance(record, dict):
        return text
    said = record.get("detail") or record.get("error") or ""
    return said if isinstance(said, str) else json.dumps(_without_input(said))


def _without_input(detail: Any) -> Any:
    """FastAPI's list of invalid fields, without their values: those may be whole pictures."""
    if not isinstance(detail, list):
        return detail
    return [{k: v for k, v in d.items() if k in ("loc", "msg")} if isinstance(d, dict) else d for d in detail]


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError as error:
        raise ConfigError("the http editor needs httpx: pip install 'thinkedit[serve]'") from error
    return httpx


def _check(config: HTTPConfig) -> None:
    if config.model not in wire.PRESETS:
        raise UnknownName("model of the http editor", config.model, wire.PRESETS)
    if config.resize is not None and config.resize not in list(Resize):
        raise UnknownName("resize policy", config.resize, list(Resize))
    if not config.urls:
        raise ConfigError("urls: the http editor needs at least one, such as http://127.0.0.1:8005")
    for url in config.urls:
        check_url(url)
    if len({url.rstrip("/") for url in config.urls}) < len(config.urls):
        raise ConfigError("urls: a server is named twice")
    reserved = wire.RESERVED & config.fields.keys()
    if reserved:
        raise ConfigError(
            f"fields: {', '.join(sorted(reserved))} can't be set here; steps has its own option"
        )
    if config.binary and (config.model != "plain" or config.steps is not None or config.fields):
        raise ConfigError("binary: its servers take no model, steps or fields; set them where it is served")
    for name in ("steps", "concurrency", "breaker_failures"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    for name in ("try_timeout_s", "connect_timeout_s", "breaker_rest_s", "hedge_after_s"):
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be above 0, got {value}")


def check_url(url: str) -> None:
    """
    Raises:
        ConfigError: not a plain http(s) address. The message leaves out what may be a secret in it.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("urls: name the server only; a secret goes into an environment variable")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"urls: {url!r} must look like http://127.0.0.1:8005")

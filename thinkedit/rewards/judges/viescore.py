"""VIEScore's two questions, asked of any OpenAI-compatible server that shows pictures to a model."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.util
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from statistics import fmean, variance
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from thinkedit.background import BackgroundLoop
from thinkedit.errors import ConfigError, JudgeError, UnknownName
from thinkedit.rewards.judges import viescore_prompts
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.chat import Answer, ChatClient, Limits
from thinkedit.rewards.judges.checked import check_question
from thinkedit.rewards.judges.questions import Questions
from thinkedit.rewards.judges.verdict_text import read_marks
from thinkedit.rewards.limits.meter import Usage, picture_tokens, text_tokens
from thinkedit.types import RGB, SCORE_MAX, JudgeIdentity, Scores, Verdict

OUTPUTS = ("json_schema", "json_object", "text")
IMAGE_FORMATS = ("png", "jpeg")
_REPLY_TOKENS = 4000  # a guess from above, where max_tokens is not set

Marks = tuple[float, float]
T = TypeVar("T")


@dataclass
class VIEScoreConfig:
    """Seconds, where a name ends in _s."""

    model: str = "gpt-4.1-2025-04-14"  # a dated snapshot: an alias may change its marks overnight
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = "OPENAI_API_KEY"  # the variable that holds the key; null: none needed
    output: str = "json_schema"  # what the server can be held to: "json_schema" | "json_object" | "text"
    temperature: float | None = 0.0  # null: not sent, for models that refuse it
    seed: int | None = 0  # of the first sample, the next ones count up; null: not sent
    samples: int = 1  # verdicts averaged; above 1 needs a temperature above 0
    max_tokens: int | None = 1000  # of one reply; null: not sent
    image_format: str = "png"  # "png" | "jpeg" (smaller, and its own artefacts are judged along)
    max_side: int | None = None  # larger pictures are scaled down to it, in pixels
    extra_body: dict[str, Any] = field(default_factory=dict)  # sent as it is with every request
    tries: int = 3  # calls per question and sample, at most
    request_timeout_s: float = 60.0  # one call, from its start to the last byte
    connect_timeout_s: float = 5.0
    backoff_s: float = 1.0  # before the second try, then doubled
    max_wait_s: float = 30.0  # a server that asks for a longer wait is given up
    concurrency: int = 32  # calls in flight from this process


class VIEScoreJudge(Judge):
    """Semantic consistency from both pictures, perceptual quality from the edited one, two marks each.

    semantic = min(success, restraint); quality = min(naturalness, cleanness); both on a scale to
    10, whatever the questions' own is. With several samples each is the mean over them. The two
    questions are asked at the same time and only the one that failed is asked again.
    """

    Config: ClassVar[type[VIEScoreConfig]] = VIEScoreConfig
    questions: ClassVar[Questions] = viescore_prompts.QUESTIONS
    metered = True
    name = "viescore"
    revision = "1"  # of the code around the questions; they have a version of their own

    def __init__(self, config: VIEScoreConfig) -> None:
        """
        Raises:
            ConfigError: a value that can't work, no key in the environment, or no openai package.
        """
        _check(config)
        self._config = config
        prompt_hash = _hash(self.questions.everything, json.dumps(self._marking(), sort_keys=True))
        self._identity = (f"{self.name}@{self.revision}/{config.model}", prompt_hash)
        names = {limit.name for limit in fields(Limits)}
        limits = Limits(**{name: getattr(config, name) for name in names})
        self._chat = ChatClient(config.base_url, config.api_key_env, limits)
        self._background = BackgroundLoop("the judge", JudgeError)

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        """As `Judge.judge`; `notes` keep marks, raw replies, faults on the way, calls and tokens.

        Raises:
            JudgeUnreachable, JudgeRefused, JudgeUnreadable: by what the last try met; when both
                questions fail, that of the semantic one.
            JudgeError: pictures of different sizes or an empty instruction; nobody was asked.
            ServiceTimeout: the last try got no answer in time, or its turn would come too late.
            BudgetExceeded: the run's budget has nothing left for a call.
        """
        check_question(source, edited, instruction)
        return self._background.run(self._judge(source, edited, instruction))

    async def judge_async(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        """As `judge`. Cancelling it ends the calls under way."""
        check_question(source, edited, instruction)
        return await self._background.run_async(self._judge(source, edited, instruction))

    async def ask(
        self,
        question: str,
        pictures: Sequence[RGB],
        read: Callable[[str], T],
        *,
        system: str = "",
        schema: Mapping[str, Any] | None = None,
        who: str,
    ) -> Answer[T]:
        """A question of somebody else's, with this judge's server, settings and patience.

        Args:
            read: raises ValueError for a reply that is not what was asked for.
            schema: JSON schema of the reply; None where it is no JSON.
            who: for messages.

        Raises:
            JudgeError, ServiceTimeout, BudgetExceeded: as `judge`.
        """
        shown = await asyncio.gather(*(asyncio.to_thread(self._picture, picture) for picture in pictures))
        body = self._body(question, shown, 0, system=system, schema=schema)
        guess = self._guess(system + question, schema, pictures)
        asked = self._chat.ask(body, read, who, meter=self.meter, guess=guess)
        return await self._background.run_async(asked)

    def settings(self) -> Mapping[str, Any]:
        return {**self._marking(), "prompt_hash": self._identity[1]}

    def identities(self) -> frozenset[JudgeIdentity]:
        return frozenset({self._identity})

    def close(self) -> None:
        self._background.close(self._chat.close)

    def _marking(self) -> dict[str, Any]:
        """Every setting that may move a mark. Not the address: the model is the same at another one."""
        config = self._config
        names = "model output temperature seed samples max_tokens image_format max_side extra_body".split()
        return {name: getattr(config, name) for name in names} | {"prompts": self.questions.version}

    async def _judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        before, after = await asyncio.gather(
            asyncio.to_thread(self._picture, source), asyncio.to_thread(self._picture, edited)
        )
        samples = range(self._config.samples)
        sc, pq = self.questions.about(instruction), self.questions.quality
        asked = [self._ask("semantic question", sc, (before, after), (source, edited), k) for k in samples]
        asked += [self._ask("quality question", pq, (after,), (edited,), k) for k in samples]
        # All are heard before any error is raised: which one it is must not depend on who is faster.
        answers = await asyncio.gather(*asked, return_exceptions=True)
        good: list[Answer[Marks]] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            good.append(answer)
        return self._verdict(good[: len(samples)], good[len(samples) :])

    async def _ask(
        self, who: str, question: str, pictures: Sequence[str], images: Sequence[RGB], sample: int
    ) -> Answer[Marks]:
        """pictures: the images as they are sent."""
        system, schema = self.questions.system, self.questions.schema
        return await self._chat.ask(
            self._body(question, pictures, sample, system=system, schema=schema),
            partial(read_marks, top=self.questions.top),
            f"judge {self.name!r} ({self._config.model}), {who}",
            meter=self.meter,
            guess=self._guess(system + question, schema, images),
        )

    def _guess(self, text: str, schema: Mapping[str, Any] | None, images: Sequence[RGB]) -> Usage:
        """What one call may use, rather too much than too little."""
        config = self._config
        prompt_tokens = text_tokens(text if schema is None else text + json.dumps(schema))
        for height, width in (image.shape[:2] for image in images):
            scale = min(1.0, (config.max_side or math.inf) / max(height, width))
            prompt_tokens += picture_tokens(height * scale, width * scale)
        reply = config.max_tokens or config.extra_body.get("max_completion_tokens") or _REPLY_TOKENS
        return Usage(prompt_tokens=prompt_tokens, completion_tokens=int(reply), images=len(images))

    def _body(
        self,
        question: str,
        pictures: Sequence[str],
        sample: int,
        *,
        system: str,
        schema: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        config = self._config
        shown = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
        messages = [{"role": "user", "content": [{"type": "text", "text": question}, *shown]}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        body: dict[str, Any] = {"model": config.model, "messages": messages}
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.seed is not None:
            body["seed"] = config.seed + sample
        if config.max_tokens is not None:
            body["max_tokens"] = config.max_tokens
        held_to = "text" if schema is None else config.output
        if held_to == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif held_to == "json_schema":
            form = {"name": "marks", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if config.extra_body:
            body["extra_body"] = dict(config.extra_body)
        return body

    def _picture(self, image: RGB) -> str:
        """As a data URL."""
        picture, side = Image.fromarray(np.ascontiguousarray(image)), self._config.max_side
        if side is not None and max(picture.size) > side:
            scale = side / max(picture.size)
            width, height = (max(1, round(length * scale)) for length in picture.size)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        if self._config.image_format == "png":
            picture.save(buffer, "PNG", compress_level=1)
        else:
            picture.save(buffer, "JPEG", quality=95, subsampling=0)
        coded = base64.b64encode(buffer.getvalue()).decode()
        return f"data:image/{self._config.image_format};base64,{coded}"

    def _verdict(self, sc: Sequence[Answer[Marks]], pq: Sequence[Answer[Marks]]) -> Verdict:
        top = self.questions.top
        notes: dict[str, Any] = {"top": top, "semantic": _account(sc), "quality": _account(pq)}
        semantic, quality = ([min(answer.value) * SCORE_MAX / top for answer in half] for half in (sc, pq))
        if self._config.samples > 1:
            notes["variance"] = {"semantic": variance(semantic), "quality": variance(quality)}
        every = [*sc, *pq]
        notes["models"] = sorted({answer.model for answer in every})
        notes["calls"] = sum(1 + len(answer.faults) for answer in every)
        notes["prompt_tokens"] = sum(answer.prompt_tokens for answer in every)
        notes["completion_tokens"] = sum(answer.completion_tokens for answer in every)
        return Verdict(
            scores=Scores(fmean(semantic), fmean(quality)),
            judge_id=self._identity[0],
            prompt_hash=self._identity[1],
            notes=notes,
        )


def _account(answers: Sequence[Answer[Marks]]) -> dict[str, Any]:
    return {
        "marks": [list(answer.value) for answer in answers],
        "replies": [answer.text for answer in answers],
        "faults": [fault for answer in answers for fault in answer.faults],
    }


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _check(config: VIEScoreConfig) -> None:
    if config.output not in OUTPUTS:
        raise UnknownName("output", config.output, OUTPUTS)
    if config.image_format not in IMAGE_FORMATS:
        raise UnknownName("image_format", config.image_format, IMAGE_FORMATS)
    if not config.model.strip():
        raise ConfigError("model: must name a model of the server")
    address = urlsplit(config.base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError("base_url: must look like http://host:port/v1")
    if address.username or address.password or address.query:
        # Not shown: whoever writes this has put a secret there.
        raise ConfigError("base_url: must hold no user, password or query; keys come from api_key_env")
    for name in ("samples", "tries", "concurrency", "max_tokens", "max_side"):
        number = getattr(config, name)
        if number is not None and number < 1:
            raise ConfigError(f"{name}={number}: must be at least 1")
    for name in ("request_timeout_s", "connect_timeout_s"):
        if not getattr(config, name) > 0:
            raise ConfigError(f"{name}={getattr(config, name)}: must be above 0")
    for name in ("temperature", "backoff_s", "max_wait_s"):
        number = getattr(config, name)
        if number is not None and not number >= 0:
            raise ConfigError(f"{name}={number}: must not be negative")
    if config.samples > 1 and config.temperature == 0:
        raise ConfigError(f"samples={config.samples}: at temperature 0 all samples are the same")
    own = {"model", "messages", "temperature", "seed", "max_tokens", "response_format", "n", "stream"}
    taken = sorted(own & set(config.extra_body))
    if taken:
        raise ConfigError(f"extra_body: {', '.join(taken)} can't be set here, use the option of that name")
    try:
        json.dumps(config.extra_body)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"extra_body: not JSON: {error}") from error
    if importlib.util.find_spec("openai") is None:
        raise ConfigError("judges over HTTP need the openai package: pip install 'thinkedit[judge]'")

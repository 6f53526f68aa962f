"""A vision-language model behind an OpenAI-compatible server, as a policy and for questions in JSON."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel

from thinkedit.actors.play import Context, Reply
from thinkedit.configs.schema import ChatServerConfig
from thinkedit.envs.editors.http import check_url
from thinkedit.envs.editors.pictures import encode_png
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import ConfigError
from thinkedit.rewards.judges.chat import ChatClient, Limits
from thinkedit.types import RGB, Observation


class Chat:
    """Shows pictures and text to a model and gives its reply. Belongs to one event loop."""

    def __init__(self, config: ChatServerConfig) -> None:
        """
        Raises:
            ConfigError: a value that can't work, no key in the environment, or no openai package.
        """
        if importlib.util.find_spec("openai") is None:
            raise ConfigError("a thinker over HTTP needs the openai package: pip install 'thinkedit[serve]'")
        if not config.model.strip():
            raise ConfigError("inference.server.model: must name a model of the server")
        check_url(config.base_url)
        self._config = config
        self._client = ChatClient(
            config.base_url,
            config.api_key_env,
            Limits(tries=config.tries, request_timeout_s=config.request_timeout_s),
        )

    def about(self) -> Mapping[str, Any]:
        """Who is asked, and what else moves its replies. Not the address: it may hold a host's name."""
        config = self._config
        names = ("model", "output", "temperature", "send_seed", "max_tokens", "max_side")
        return {name: getattr(config, name) for name in names}

    async def ask(
        self,
        content: Sequence[str | RGB],
        *,
        seed: int,
        form: type[BaseModel] | None = None,
    ) -> Reply:
        """One reply to one user message, with the model that the server says it is from.

        Args:
            content: texts and pictures, in order.
            form: what the reply shall be in JSON, as far as the server can be held to it.

        Raises:
            JudgeError, ServiceTimeout: no reply (the client's errors, whoever it asks for).
        """
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": "user", "content": [self._part(part) for part in content]}],
        }
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.send_seed:
            body["seed"] = seed % 2**31
        if config.max_tokens is not None:
            body["max_tokens"] = config.max_tokens
        if form is not None and config.output == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif form is not None and config.output == "json_schema":
            schema = {"name": form.__name__, "strict": True, "schema": form.model_json_schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        answer = await self._client.ask(body, str, f"thinker {config.model!r}", cut_off=True)
        return Reply(answer.text, model=answer.model or None)

    async def close(self) -> None:
        await self._client.close()

    def _part(self, part: str | RGB) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        picture = Image.fromarray(np.ascontiguousarray(part))
        picture.thumbnail((self._config.max_side, self._config.max_side), Image.Resampling.LANCZOS)
        coded = base64.b64encode(encode_png(np.asarray(picture))).decode("ascii")
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{coded}"}}


class ServerPolicy:
    """The model as a policy: both pictures, then the protocol's text, as in training."""

    def __init__(self, chat: Chat, protocol: Protocol) -> None:
        self._chat, self._protocol = chat, protocol

    async def reply(self, observation: Observation, context: Context) -> Reply:
        """See `Policy`. Each turn has a seed of its own."""
        content: list[str | RGB] = [
            *self._protocol.images(observation),
            self._protocol.render_text(observation),
        ]
        return await self._chat.ask(content, seed=context.seed * 1_000_003 + observation.turn)

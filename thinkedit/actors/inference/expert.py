"""A general vision-language model as a thinker: asked in plain words, it decides by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinkedit.actors.inference.chat import Chat, ServerPolicy
from thinkedit.actors.inference.questions import PROMPT_HASH, Refinement, Rewriting, refine, rewrite
from thinkedit.actors.inference.records import Mode, Stop, Thought
from thinkedit.actors.inference.thinkers import PolicyThinker, Thinker, until_read
from thinkedit.actors.play import Reply
from thinkedit.envs.protocol import Protocol
from thinkedit.types import RGB, Observation


class ExpertThinker(Thinker):
    """Answers in JSON whether it is satisfied, and gives no scores."""

    modes = frozenset({Mode.EXPERT})

    def __init__(self, chat: Chat, protocol: Protocol, tries: int) -> None:
        self._chat, self._protocol, self._tries = chat, protocol, tries

    def about(self) -> Mapping[str, Any]:
        return {**self._chat.about(), "prompt_hash": PROMPT_HASH, "tries": self._tries}

    async def critique(self, observation: Observation, *, seed: int) -> Thought:
        content: list[str | RGB] = [refine(observation), observation.source, observation.edited]

        async def ask(seed: int) -> Reply:
            return await self._chat.ask(content, seed=seed * 1_000_003 + observation.turn, form=Refinement)

        def read(text: str) -> Thought:
            said = Refinement.read(text)
            prompt, end = said.next_prompt.strip(), None
            if said.satisfied:
                end = Stop.ACCEPTED
            elif self._protocol.repeats(prompt, observation.prompt):
                end = Stop.REPEATED
            return Thought(
                reason=said.reason.strip(),
                prompt=self._sendable(prompt) if end is None else None,
                predicted=None,
                end=end,
                reply=text,
            )

        return await until_read(ask, read, seed=seed, tries=self._tries)

    async def rewrite(self, source: RGB, instruction: str, *, seed: int) -> Thought:
        content: list[str | RGB] = [rewrite(instruction), source]

        async def ask(seed: int) -> Reply:
            return await self._chat.ask(content, seed=seed, form=Rewriting)

        def read(text: str) -> Thought:
            said = Rewriting.read(text)
            return Thought(
                reason=said.reason.strip(),
                prompt=self._sendable(said.prompt.strip()),
                predicted=None,
                end=None,
                reply=text,
            )

        return await until_read(ask, read, seed=seed, tries=self._tries)

    def _sendable(self, prompt: str) -> str:
        fault = self._protocol.answer_fault(prompt)
        if fault is not None:
            raise ValueError(fault.value)
        return prompt


class ServerThinker(Thinker):
    """A model behind a server: critiques in the protocol, first prompts and `expert` in plain words."""

    modes = frozenset(Mode)

    def __init__(self, chat: Chat, protocol: Protocol, tries: int) -> None:
        self._expert = ExpertThinker(chat, protocol, tries)
        self._policy = PolicyThinker(ServerPolicy(chat, protocol), protocol, chat.about(), tries)

    def about(self) -> Mapping[str, Any]:
        return self._policy.about()

    def for_mode(self, mode: Mode) -> Thinker:
        return self._expert if mode is Mode.EXPERT else self

    async def critique(self, observation: Observation, *, seed: int) -> Thought:
        return await self._policy.critique(observation, seed=seed)

    async def rewrite(self, source: RGB, instruction: str, *, seed: int) -> Thought:
        return await self._expert.rewrite(source, instruction, seed=seed)

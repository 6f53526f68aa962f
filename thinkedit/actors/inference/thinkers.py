"""Who critiques edits of one's own pictures: the contract, and any policy that speaks the protocol."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from thinkedit.actors.inference.records import Mode, Stop, ThinkerError, ThinkerUnreadable, Thought
from thinkedit.actors.play import Context, Policy, Reply
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import ConfigError, ThinkEditError
from thinkedit.types import RGB, End, Observation, ParseError, Task

ENDS = {End.ACCEPTED: Stop.ACCEPTED, End.REPEATED: Stop.REPEATED}
_SEEDS_APART = 7919  # between two tries, so that a try doesn't meet the seed of a later turn


class Thinker(ABC):
    """Critiques edits and words prompts, in `modes`."""

    modes: frozenset[Mode]

    @abstractmethod
    async def critique(self, observation: Observation, *, seed: int) -> Thought:
        """
        Raises:
            ThinkerError: nothing usable in all tries.
        """

    @abstractmethod
    async def rewrite(self, source: RGB, instruction: str, *, seed: int) -> Thought:
        """Word the first prompt, having seen the source alone; `prompt` None keeps the instruction.

        Raises:
            ThinkerError: nothing usable in all tries.
        """

    @abstractmethod
    def about(self) -> Mapping[str, Any]:
        """Who it is and how it is sampled, for the record."""

    def for_mode(self, mode: Mode) -> Thinker:
        """The thinker to ask in a mode.

        Raises:
            ConfigError: it can't be asked so.
        """
        if mode not in self.modes:
            known = ", ".join(known for known in Mode if known in self.modes)
            raise ConfigError(
                f"mode={mode}: this thinker does {known}. Only a model behind an OpenAI-compatible server "
                "can be asked as an expert (inference.thinker=server)"
            )
        return self


class PolicyThinker(Thinker):
    """Any policy that replies in thinkedit's protocol: a trained one, or a scripted expert.

    It knows nothing but critiques, so to word a first prompt it is shown the source in both places,
    as if the editor had changed nothing.

    Args:
        about: who it is, for the record.
        tries: replies sampled for one critique, each with another seed, until one can be read.
    """

    modes = frozenset({Mode.WHILE, Mode.BEFORE, Mode.BEFORE_WHILE})

    def __init__(self, policy: Policy, protocol: Protocol, about: Mapping[str, Any], tries: int) -> None:
        self._policy, self._protocol, self._about, self._tries = policy, protocol, about, tries

    def about(self) -> Mapping[str, Any]:
        protocol = self._protocol
        asked = {"accept_at": protocol.accept_at, "prompt_hash": protocol.prompt_hash}
        return {**self._about, **asked, "tries": self._tries}

    async def critique(self, observation: Observation, *, seed: int) -> Thought:
        task = Task(uid="own", source=observation.source, instruction=observation.instruction)

        async def ask(seed: int) -> Reply:
            return await self._policy.reply(observation, Context(task=task, verdict=None, seed=seed))

        def read(text: str) -> Thought:
            critique = self._protocol.parse(text, observation.prompt)
            if isinstance(critique, ParseError):
                raise ValueError(critique.value)
            end = self._protocol.ending(critique, observation.prompt)
            return Thought(
                reason=critique.think,
                prompt=critique.answer if end is None else None,
                predicted=critique.scores,
                end=None if end is None else ENDS[end],
                reply=text,
            )

        return await until_read(ask, read, seed=seed, tries=self._tries)

    async def rewrite(self, source: RGB, instruction: str, *, seed: int) -> Thought:
        nothing_done = Observation(
            source=source, edited=source, instruction=instruction, prompt=instruction, turn=0, turns_left=1
        )
        return await self.critique(nothing_done, seed=seed)


async def until_read(
    ask: Callable[[int], Awaitable[Reply]], read: Callable[[str], Thought], *, seed: int, tries: int
) -> Thought:
    """Ask until a reply can be read, each time with another seed.

    Args:
        ask: gives a reply for a seed.
        read: raises ValueError for a reply that is not what was asked for.

    Raises:
        ThinkerError: no reply came.
        ThinkerUnreadable: none of `tries` could be read.
    """
    began = time.perf_counter()
    faults: list[str] = []
    unread: list[str] = []
    for attempt in range(tries):
        try:
            reply = await ask(seed + attempt * _SEEDS_APART)
        except ThinkEditError as error:
            raise ThinkerError(f"the thinker gave no reply: {error}", unread) from error
        except Exception as error:  # an engine or a policy of others may raise anything
            raise ThinkerError(f"the thinker raised {type(error).__name__}: {error}", unread) from error
        try:
            thought = read(reply.text)
        except ValueError as error:
            faults.append(f"{error}: {_short(reply.text)}")
            unread.append(reply.text)
            continue
        return replace(
            thought,
            model=reply.model,
            faults=tuple(faults),
            unread=tuple(unread),
            seconds=time.perf_counter() - began,
        )
    raise ThinkerUnreadable(f"no reply of {tries} could be read: {'; '.join(faults)}", unread)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 120 else text[:120] + "…")

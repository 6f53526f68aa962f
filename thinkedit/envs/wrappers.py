"""Wrappers: keep every episode; act with a few scripted strategies instead of text."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, SupportsFloat

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from thinkedit.envs.edit_env import Info, ThinkEditEnv
from thinkedit.envs.world.instructions import VERBS, parse_instruction, phrase, refer
from thinkedit.envs.world.sprites import read_scene
from thinkedit.errors import ConfigError, DataError
from thinkedit.types import Critique, Episode, Scores

TextObservation = dict[str, Any]
Vector = npt.NDArray[np.float32]

Strategy = Callable[[Mapping[str, Any]], str]
"""From an observation of `ThinkEditEnv` to the next prompt; the present prompt keeps the edit."""

WORD_BUCKETS = 32
_OTHER_FEATURES = 4


class Sink(Protocol):
    """Where episodes go; `actors.store.TrajectoryStore` and `list` are two."""

    def append(self, episode: Episode, /) -> object: ...


def edit_env(env: gymnasium.Env[Any, Any]) -> ThinkEditEnv:
    """The environment under any wrappers.

    Raises:
        ConfigError: it is not ours.
    """
    inner = env.unwrapped
    if not isinstance(inner, ThinkEditEnv):
        raise ConfigError(f"expected a thinkedit environment under the wrapper, got {type(inner).__name__}")
    return inner


class RecordEpisodes(gymnasium.Wrapper[TextObservation, str, TextObservation, str]):
    """Appends each finished episode to `sink`, and each start that failed; abandoned ones are not kept."""

    def __init__(self, env: gymnasium.Env[TextObservation, str], sink: Sink) -> None:
        super().__init__(env)
        self._sink, self._inner = sink, edit_env(env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[TextObservation, Info]:
        try:
            return super().reset(seed=seed, options=options)
        finally:
            for episode in self._inner.failed_starts:
                self._sink.append(episode)

    def step(self, action: str) -> tuple[TextObservation, SupportsFloat, bool, bool, Info]:
        result = super().step(action)
        if self._inner.session.done:
            self._sink.append(self._inner.episode())
        return result


class DiscreteStrategies(gymnasium.Wrapper[Vector, int, TextObservation, str], RecordConstructorArgs):
    """Act by choosing a strategy, observe a small vector: what any discrete learner can do.

    Each strategy gives the next prompt; the wrapper says it in a well-formed reply with constant
    predicted scores. `info["strategy"]` names the one taken.

    Args:
        strategies: by name, in the order of the actions; None takes `world_strategies()`.
        scores: what every reply predicts. Below the threshold, or each of them would accept.
    """

    def __init__(
        self,
        env: gymnasium.Env[TextObservation, str],
        strategies: Mapping[str, Strategy] | None = None,
        scores: Scores = Scores(5.0, 5.0),  # noqa: B008 - frozen
    ) -> None:
        RecordConstructorArgs.__init__(self, strategies=strategies, scores=scores)
        super().__init__(env)
        self.strategies = dict(strategies or world_strategies())
        self._scores, self._protocol = scores, edit_env(env).setup.parts.protocol
        self._seen: TextObservation | None = None
        self.action_space = spaces.Discrete(len(self.strategies))
        self.observation_space = spaces.Box(0.0, 1.0, (_OTHER_FEATURES + WORD_BUCKETS,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, Info]:
        self._seen, info = self.env.reset(seed=seed, options=options)
        return features(self._seen), info

    def step(self, action: int) -> tuple[Vector, SupportsFloat, bool, bool, Info]:
        if self._seen is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        name, strategy = list(self.strategies.items())[int(action)]
        prompt = self._seen["prompt"]
        critique = Critique(f"strategy: {name}", self._scores, strategy(self._seen))
        reply = self._protocol.format_reply(critique, prompt)
        self._seen, reward, terminated, truncated, info = self.env.step(reply)
        return features(self._seen), reward, terminated, truncated, {**info, "strategy": name}


def features(observation: Mapping[str, Any]) -> Vector:
    """A fixed vector in [0, 1]: how far the episode is, how much the edit changed, and the words asked.

    The words of the instruction fall into WORD_BUCKETS by a hash that is the same in every process.
    """
    source = observation["source"].astype(np.int16)  # widened: uint8 wraps around when subtracted
    change = np.abs(observation["edited"].astype(np.int16) - source)
    turn, left = int(observation["turn"]), int(observation["turns_left"])
    vector = np.zeros(_OTHER_FEATURES + WORD_BUCKETS, dtype=np.float32)
    vector[:_OTHER_FEATURES] = (
        turn / max(1, turn + left),
        observation["prompt"] == observation["instruction"],
        change.mean() / 255.0,
        change.any(axis=2).mean(),
    )
    for word in observation["instruction"].casefold().split():
        vector[_OTHER_FEATURES + zlib.crc32(word.encode("utf-8", "replace")) % WORD_BUCKETS] = 1.0
    return vector


def keep(observation: Mapping[str, Any]) -> str:
    """Repeat the prompt, which keeps the edit."""
    return str(observation["prompt"])


def world_strategies() -> dict[str, Strategy]:
    """Seven strategies for the built-in world: keep, and its three verbs for each operation, said
    curtly ("paint the red star blue") or carefully ("... at top-left blue, leave the rest alone")."""
    strategies: dict[str, Strategy] = {"keep": keep}
    for verb in range(3):
        strategies[f"verb {verb}"] = _Reworded(verb, careful=False)
        strategies[f"verb {verb}, careful"] = _Reworded(verb, careful=True)
    return strategies


class _Reworded:
    """The instruction's goal with a given verb; reads the source picture for what it points at."""

    def __init__(self, verb: int, *, careful: bool) -> None:
        self._verb, self._careful = verb, careful

    def __call__(self, observation: Mapping[str, Any]) -> str:
        instruction = parse_instruction(observation["instruction"])
        if instruction is None:
            raise DataError(f"not an instruction of the world: {observation['instruction']!r}")
        goal = instruction.goals(read_scene(observation["source"]).scene)[0]
        reference = refer(goal.target, place=self._careful) if goal.target else ""
        text = phrase(goal, VERBS[goal.operation][self._verb], reference)
        return f"{text}, leave the rest alone" if self._careful else text

"""Many episodes side by side, with one batch of edits per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.error import ClosedEnvironmentError
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from thinkedit.background import BackgroundLoop
from thinkedit.configs.schema import Config
from thinkedit.envs.edit_env import EnvSetup, observe, reward_of, start_info, turn_info
from thinkedit.envs.editors.base import EditRequest
from thinkedit.envs.render import contact_sheet
from thinkedit.envs.services import JudgeRequest
from thinkedit.envs.session import Plan
from thinkedit.errors import ConfigError, UnknownName
from thinkedit.types import Episode, Turn

Booleans = npt.NDArray[np.bool_]


class ThinkEditVectorEnv(VectorEnv[dict[str, Any], Sequence[str], npt.NDArray[Any]]):
    """`num_envs` sessions over one editor and one judge.

    A step asks for all the edits it needs at once, equal ones once, and for the verdicts side by side.
    Edits are one batch where the editor makes batches (`Editor.edit_many`). An environment whose episode
    ended begins the next one in the step after (`AutoresetMode.NEXT_STEP`): that step ignores its action and
    gives reward 0.

    Args:
        group_size: this many neighbours are siblings: they share a seed, and with it the tasks,
            editor seeds and first edits of all their episodes. With 1, environment k is seeded with
            `seed + k`, as in Gymnasium's own vector environments.
        on_episode: is called with each finished episode, and with each start that failed.
        setup: as `EnvSetup.make`.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 1,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        config: str | Config = "demo",
        overrides: Sequence[str] = (),
        *,
        group_size: int = 1,
        on_episode: Callable[[Episode], object] = lambda episode: None,
        render_mode: str | None = None,
        **setup: Any,
    ) -> None:
        self.closed = True  # until there is something to close: Gymnasium closes half-made objects too
        if num_envs < 1 or group_size < 1 or num_envs % group_size:
            raise ConfigError(f"num_envs={num_envs} must be a positive multiple of group_size={group_size}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise UnknownName("render mode", render_mode, self.metadata["render_modes"])
        self.num_envs, self.render_mode = num_envs, render_mode
        self.setup = EnvSetup.make(config, overrides, **setup)
        self.sessions = [self.setup.parts.session() for _ in range(num_envs)]
        self.single_observation_space = self.setup.observation_space()
        self.single_action_space = self.setup.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._group_size, self._on_episode = group_size, on_episode
        self._rngs: list[np.random.Generator] = []
        self._over = np.zeros(num_envs, dtype=np.bool_)
        self._loop = BackgroundLoop("the environment", ClosedEnvironmentError)
        self.closed = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode in each environment; `options` as in `ThinkEditEnv.reset`, for all of them.

        Raises:
            ServiceError: a first edit could not be made or judged, for several tasks in a row.
        """
        if seed is not None or not self._rngs:
            seeds = seed if isinstance(seed, list) else self._neighbours(seed)
            if len(seeds) != self.num_envs:
                raise ConfigError(f"{len(seeds)} seeds for {self.num_envs} environments")
            self._rngs = [seeding.np_random(one)[0] for one in seeds]
        try:
            self._run([self._begin(k, options or {}) for k in range(self.num_envs)])
        finally:
            self._over = self._done()
        return self._observations(), self._infos([start_info(session) for session in self.sessions])

    def step(
        self, actions: Sequence[str]
    ) -> tuple[dict[str, Any], npt.NDArray[np.float64], Booleans, Booleans, dict[str, Any]]:
        """One turn in each environment, or its next start where the episode was over.

        Raises:
            ConfigError: not one action for each environment.
            ServiceError: a first edit could not be made or judged, for several tasks in a row. The other
                environments have had their turn, and the next step starts this one again.
        """
        if len(actions) != self.num_envs:
            raise ConfigError(f"{len(actions)} actions for {self.num_envs} environments: give each its own")
        starting = self._over.copy()
        plans: list[Plan[Turn | None]] = [
            self._begin(k, {}) if starting[k] else self.sessions[k].step_plan(action)
            for k, action in enumerate(actions)
        ]
        try:
            turns = self._run(plans)
        finally:  # one start that failed must not cost the others their episodes
            self._over = self._done()
            for k in np.flatnonzero(self._over & ~starting):
                self._on_episode(self.sessions[k].episode())
        rewards = np.array([0.0 if turn is None else reward_of(turn) for turn in turns])
        terminated = np.array([turn is not None and turn.terminated for turn in turns])
        truncated = np.array([turn is not None and turn.truncated for turn in turns])
        infos = [
            start_info(session) if turn is None else turn_info(session, turn)
            for session, turn in zip(self.sessions, turns, strict=True)
        ]
        return self._observations(), rewards, terminated, truncated, self._infos(infos)

    def render(self) -> tuple[Any, ...] | None:
        """A contact sheet for each environment."""
        if self.render_mode is None:
            return None
        return tuple(contact_sheet(session) for session in self.sessions)

    def close_extras(self, **kwargs: Any) -> None:
        """Close what was built here, and the event loop."""
        self._loop.close()
        self.setup.close()

    def _neighbours(self, seed: int | None) -> list[int | None]:
        if seed is None:
            # Siblings need a common seed even when the user asks for none.
            seed = int(np.random.default_rng().integers(2**31))
        return [seed + k // self._group_size for k in range(self.num_envs)]

    def _done(self) -> Booleans:
        return np.array([session.done for session in self.sessions])

    def _begin(self, k: int, options: dict[str, Any]) -> Plan[None]:
        return self.setup.begin(self.sessions[k], self._rngs[k], options, self._on_episode)

    def _run(self, plans: Sequence[Plan[Any]]) -> list[Any]:
        return self._loop.run(self._drive(plans))

    async def _drive(self, plans: Sequence[Plan[Any]]) -> list[Any]:
        """Drive all plans in lock-step; their requests of one kind meet in one batch."""
        results: list[Any] = [None] * len(plans)
        failures: list[Exception] = []
        answers: dict[int, Any] = dict.fromkeys(range(len(plans)))
        while answers:
            requests: dict[int, EditRequest | JudgeRequest] = {}
            for k, answer in answers.items():
                try:
                    requests[k] = plans[k].send(answer)
                except StopIteration as finished:
                    results[k] = finished.value
                except Exception as error:  # noqa: BLE001 - raised below, once the others have their turns
                    failures.append(error)
            made = await self.sessions[0].services.call_many(list(requests.values()))
            answers = dict(zip(requests, made, strict=True))
        if failures:
            raise failures[0]
        return results

    def _observations(self) -> dict[str, Any]:
        observed = [observe(session) for session in self.sessions]
        space = self.single_observation_space
        batch: Any = concatenate(space, observed, create_empty_array(space, self.num_envs))
        return dict(batch)

    def _infos(self, infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        for k, info in enumerate(infos):
            batch = self._add_info(batch, info, k)
        _mark_missing(batch)
        return batch


def _mark_missing(batch: dict[str, Any]) -> None:
    """NaN for each number that an environment has not: Gymnasium leaves 0.0 there, which would be a score."""
    for key, value in batch.items():
        if isinstance(value, dict):
            _mark_missing(value)
        elif value.dtype.kind == "f":
            value[~batch[f"_{key}"]] = np.nan

"""Gymnasium's own checker, and one episode through every face of the session."""

import asyncio
import random
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from plain import reply

from thinkedit.actors.play import Context, Reply, play
from thinkedit.envs.build import Parts
from thinkedit.envs.edit_env import ThinkEditEnv
from thinkedit.envs.registration import ENV_IDS
from thinkedit.envs.vector import ThinkEditVectorEnv
from thinkedit.envs.world.experts import NaiveExpert
from thinkedit.envs.wrappers import DiscreteStrategies
from thinkedit.types import Episode, Observation


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_the_checker_passes(env_id: str) -> None:
    env = gymnasium.make(env_id, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()
    env.close()


def test_the_checker_passes_through_the_wrapper() -> None:
    env = DiscreteStrategies(gymnasium.make("thinkedit/EditStep-v0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*recommend using the raw environment.*")
        check_env(env, skip_render_check=True)
    env.close()


def everything(episode: Episode) -> dict[str, Any]:
    """All that an episode holds but its time and its random name; images as bytes."""

    def turn_parts(turn: Any) -> dict[str, Any]:
        fields = {name: getattr(turn, name) for name in turn.__slots__ if name != "edited"}
        return fields | {"edited": turn.edited.tobytes()}

    assert episode.first_edit is not None
    return {
        "task": (episode.task.uid, episode.task.instruction, episode.task.source.tobytes()),
        "names": (episode.group, episode.seed, episode.outcome),
        "first": (episode.first_edit.tobytes(), episode.first),
        "turns": [turn_parts(turn) for turn in episode.turns],
    }


def replies_for(observation: dict[str, Any]) -> str:
    """Deterministic in what is seen: a refinement, garbage, or (late) a repeated prompt."""
    kind = (len(observation["instruction"]) + int(observation["turn"])) % 4
    if kind == 0:
        return "garbage"
    if kind == 1 and observation["turn"] > 0:
        return reply(observation["prompt"])
    return reply(f"please {observation['instruction']}, leave the rest alone")


class SameReplies:
    async def reply(self, observation: Observation, context: Context) -> Reply:
        seen = {name: getattr(observation, name) for name in ("instruction", "prompt", "turn")}
        return Reply(replies_for(seen))


def through_env(seeds: list[int]) -> list[Episode]:
    env, episodes = gymnasium.make("thinkedit/Edit-v0", max_turns=3), []
    assert isinstance(env.unwrapped, ThinkEditEnv)
    for seed in seeds:
        seen, _ = env.reset(seed=seed)
        done = False
        while not done:
            seen, _, terminated, truncated, _ = env.step(replies_for(seen))
            done = terminated or truncated
        episodes.append(env.unwrapped.episode())
    env.close()
    return episodes


def through_vector_env(seeds: list[int]) -> list[Episode]:
    episodes: dict[str, Episode] = {}
    env = gymnasium.make_vec("thinkedit/Edit-v0", num_envs=len(seeds), max_turns=3)
    assert isinstance(env, ThinkEditVectorEnv)
    seen, infos = env.reset(seed=list(seeds))
    groups = list(infos["group"])
    waiting = set(range(len(seeds)))
    while waiting:
        actions = [
            replies_for({name: seen[name][k] for name in ("instruction", "prompt", "turn")})
            for k in range(len(seeds))
        ]
        seen, _, terminated, truncated, _ = env.step(actions)
        for k in np.flatnonzero(terminated | truncated):
            if k in waiting:
                episodes[groups[k]] = env.sessions[k].episode()
                waiting.remove(int(k))
    env.close()
    return [episodes[group] for group in groups]


def through_the_episode_loop(seeds: list[int], like: list[Episode]) -> list[Episode]:
    """The loop of the rollout actors, started from the tasks and editor seeds that the env drew."""
    env = gymnasium.make("thinkedit/Edit-v0", max_turns=3)
    assert isinstance(env.unwrapped, ThinkEditEnv)
    parts: Parts = env.unwrapped.setup.parts

    async def collect() -> list[Episode]:
        return [
            await play(parts.session(), one.task, one.seed, SameReplies(), group=one.group) for one in like
        ]

    return asyncio.run(collect())


def test_the_same_seed_and_replies_give_the_same_episode_through_every_face() -> None:
    seeds = [3, 11, 12, 40]
    single = through_env(seeds)
    assert len({episode.task.uid for episode in single}) == len(seeds)
    assert {len(episode.turns) for episode in single} != {1}
    faces: list[Callable[[], list[Episode]]] = [
        lambda: through_env(seeds),
        lambda: through_vector_env(seeds),
        lambda: through_the_episode_loop(seeds, single),
    ]
    for face in faces:
        assert [everything(episode) for episode in face()] == [everything(episode) for episode in single]


def test_a_vector_env_declares_its_autoreset_and_keeps_to_it() -> None:
    env = gymnasium.make_vec("thinkedit/EditStep-v0", num_envs=2)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    _, first = env.reset(seed=0)
    _, _, terminated, _, _ = env.step(["junk", "junk"])
    assert terminated.all()
    seen, rewards, terminated, truncated, infos = env.step(["ignored", "ignored"])
    assert not (terminated | truncated).any()
    assert (rewards == 0).all()
    assert (seen["turn"] == 0).all()
    assert set(infos["task"]).isdisjoint(first["task"])
    assert seen in env.observation_space
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_own_vector_envs_play_the_same_episode(mode: str) -> None:
    ours = gymnasium.make_vec("thinkedit/Edit-v0", num_envs=2)
    theirs = gymnasium.make_vec("thinkedit/Edit-v0", num_envs=2, vectorization_mode=mode)
    try:
        same(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
        for texts in ([reply("draw a hat"), "junk"], ["é🎨", reply("keep it")], ["a", "b"]):
            mine, yours = ours.step(texts), theirs.step(texts)
            same(mine[0], yours[0])
            for a, b in zip(mine[1:4], yours[1:4], strict=True):
                assert np.array_equal(a, b)
    finally:
        ours.close()
        theirs.close()


def same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert set(one) == set(two)
    for name in one:
        assert len(one[name]) == len(two[name])
        assert all(np.array_equal(a, b) for a, b in zip(one[name], two[name], strict=True)), name


def test_an_expert_plays_through_the_env() -> None:
    env = gymnasium.make("thinkedit/Edit-v0")
    assert isinstance(env.unwrapped, ThinkEditEnv)
    expert = NaiveExpert(env.unwrapped.setup.parts.protocol)
    total, episodes = 0.0, 10
    for seed in range(episodes):
        env.reset(seed=seed)
        session = env.unwrapped.session
        done = False
        while not done:
            text = expert.reply(session.observation, session.task, session.verdict, random.Random(seed))
            _, _, terminated, truncated, info = env.step(text)
            assert info["outcome"] == "ok"
            done = terminated or truncated
        total += info["scores"]["overall"]
    assert total / episodes > 4

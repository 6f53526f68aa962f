"""Recording, and acting by strategies."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from plain import Broken, HalfJudge, HalfPainter, raising, reply, task

from thinkedit.actors.store import TrajectoryStore
from thinkedit.envs.wrappers import DiscreteStrategies, RecordEpisodes, features, world_strategies
from thinkedit.errors import ConfigError, DataError, EditorError
from thinkedit.types import Episode, Outcome, ParseError


def test_finished_episodes_are_recorded_and_abandoned_ones_are_not() -> None:
    kept: list[Episode] = []
    env = RecordEpisodes(gymnasium.make("thinkedit/Edit-v0", editor=HalfPainter(), judge=HalfJudge()), kept)
    env.reset(seed=0)
    env.step("junk")
    env.reset(seed=1, options={"task": task()})
    assert kept == []
    env.step("junk")
    env.step(reply("paint it red", 9, 9))
    assert [len(episode.turns) for episode in kept] == [2]
    assert kept[0].task.uid == "t0"


def test_a_start_that_failed_is_recorded() -> None:
    kept: list[Episode] = []
    broken = Broken(raising(EditorError("503")), good=0)
    env = RecordEpisodes(gymnasium.make("thinkedit/Edit-v0", editor=broken, judge=HalfJudge()), kept)
    with pytest.raises(EditorError):
        env.reset(options={"task": task()})
    assert [episode.outcome for episode in kept] == [Outcome.EDITOR_FAILED]


def test_the_trajectory_store_is_a_sink_for_any_text(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path / "trajectories")
    env = RecordEpisodes(gymnasium.make("thinkedit/EditStep-v0"), store)
    texts = ["a\x00b", "\U0001f3a8", "lone \ud800 surrogate", ""]
    for seed, text in enumerate(texts):
        env.reset(seed=seed)
        env.step(text)
    store.flush()
    turns = [episode.turns[0] for episode in store.read()]
    assert [turn.reply for turn in turns if turn.error is not ParseError.NOT_UNICODE] == [
        text for text in texts if "\ud800" not in text
    ]
    assert len(turns) == len(texts)


def test_strategies_speak_well_formed_replies() -> None:
    env = DiscreteStrategies(gymnasium.make("thinkedit/EditStep-v0"))
    names = list(env.strategies)
    assert len(names) == env.action_space.n == 7
    prompts = set()
    for action, name in enumerate(names):
        seen, _ = env.reset(seed=4)
        assert seen in env.observation_space
        seen, reward, terminated, _, info = env.step(action)
        assert seen in env.observation_space
        assert (info["outcome"], info["strategy"], terminated) == ("ok", name, True)
        assert info["kept"] == (name == "keep")
        assert 0.125 <= float(reward) <= 1  # what a well-formed reply earns at least
        prompts.add(env.unwrapped.session.turns[0].critique.answer)  # type: ignore[attr-defined]
    assert len(prompts) == 7


def test_the_features_tell_the_words_and_what_changed() -> None:
    start = task("make it red")
    observed = {
        "source": start.source,
        "edited": start.source,
        "instruction": "make it red",
        "prompt": "make it red",
        "turn": 1,
        "turns_left": 1,
    }
    same = features(observed)
    assert list(same[:4]) == [0.5, 1.0, 0.0, 0.0]
    changed = features({**observed, "edited": 255 - start.source, "prompt": "paint it red"})
    assert changed[1] == 0
    assert changed[3] > 0.9
    assert np.array_equal(changed[4:], same[4:])
    assert not np.array_equal(features({**observed, "instruction": "erase the star"})[4:], same[4:])


def test_own_strategies_and_foreign_envs() -> None:
    env = gymnasium.make("thinkedit/EditStep-v0", editor=HalfPainter(), judge=HalfJudge())
    own = DiscreteStrategies(
        env, {"red": lambda seen: "paint it red badly", "keep": lambda seen: seen["prompt"]}
    )
    own.reset(options={"task": task("make it red")})
    assert own.step(1)[4]["end"] == "repeated"
    with pytest.raises(gymnasium.error.ResetNeeded):
        DiscreteStrategies(env).step(0)
    with pytest.raises(ConfigError, match="CartPole"):
        RecordEpisodes(gymnasium.make("CartPole-v1"), [])


def test_the_worlds_strategies_refuse_what_is_no_instruction_of_the_world() -> None:
    with pytest.raises(DataError, match="hello"):
        world_strategies()["verb 0"]({"instruction": "hello", "source": task().source})

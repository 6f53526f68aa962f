"""Faults in a tenth and in three tenths of all calls change no reward of what could be made and graded.

Luck is drawn for each call of an episode, whatever it asks, and is the same on every run.
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from plain import raising

from thinkedit.actors.play import play_many
from thinkedit.actors.policy import ScriptedPolicy
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.editors.procedural import ProceduralEditor
from thinkedit.envs.world.experts import NaiveExpert
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.errors import EditorError, JudgeRefused, JudgeUnreadable, ServiceTimeout
from thinkedit.evals.stats import mean_interval
from thinkedit.types import RGB, Episode, Outcome, Scores, Turn, Verdict

pytestmark = pytest.mark.chaos

TASKS = 600
FAILURES = {Outcome.EDITOR_FAILED, Outcome.JUDGE_FAILED, Outcome.TIMEOUT}
Fault = Callable[[Any], object]

BAD_EDITS: tuple[Fault, ...] = (
    raising(EditorError("HTTP 500")),
    raising(ServiceTimeout("no answer")),
    raising(RuntimeError("CUDA error: an illegal memory access was encountered")),
    np.zeros_like,
    lambda image: image[:-1],
    lambda image: image / 255,
    lambda image: None,
)
BAD_VERDICTS: tuple[Fault, ...] = (
    raising(JudgeRefused("I can't help with that")),
    raising(JudgeUnreadable("no marks in the reply")),
    raising(KeyError("score")),
    lambda verdict: replace(verdict, scores=Scores(11.0, 5.0)),
    lambda verdict: replace(verdict, scores=Scores(float("nan"), 5.0)),
    lambda verdict: (8, 6),
)


class Luck:
    """Strikes a `share` of all calls; the same ones of the same episode on every run."""

    def __init__(self, share: float, faults: Sequence[Fault]) -> None:
        self._share, self._faults, self._calls = share, faults, Counter[int]()

    def __call__(self, answer: Any, source: RGB) -> Any:
        """The answer, or what a fault makes of it. Each episode has a source of its own."""
        episode = zlib.crc32(source.tobytes())
        self._calls[episode] += 1
        luck = np.random.default_rng([len(self._faults), episode, self._calls[episode]])
        fault = self._faults[luck.integers(len(self._faults))]
        return fault(answer) if luck.random() < self._share else answer


class FaultyEditor(ProceduralEditor):
    def __init__(self, share: float) -> None:
        super().__init__()
        self._luck = Luck(share, BAD_EDITS)

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        return self._luck(super().edit(source, prompt, seed=seed), source)  # type: ignore[no-any-return]


class FaultyJudge(WorldJudge):
    def __init__(self, share: float) -> None:
        super().__init__()
        self._luck = Luck(share, BAD_VERDICTS)

    def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        return self._luck(super().judge(source, edited, instruction), source)  # type: ignore[no-any-return]


def play(share: float) -> dict[str, Episode]:
    """An episode of the scripted expert for each task, by the task's name."""
    parts = Parts.from_config(load_config("demo"))
    parts = replace(parts, editor=FaultyEditor(share), judge=FaultyJudge(share))  # a cache would spare calls
    starts = [(parts.tasks.task("train", index), index) for index in range(TASKS)]

    async def collect() -> list[Episode]:
        policy = ScriptedPolicy(NaiveExpert(parts.protocol))
        return [episode async for episode in play_many(parts.session, starts, policy)]

    return {episode.task.uid: episode for episode in asyncio.run(collect())}


played = lru_cache(play)


def samples(share: float) -> dict[tuple[str, int], Turn]:
    return {(name, t.index): t for name, episode in played(share).items() for t in episode.turns}


def rewards(turns: Sequence[Turn]) -> list[float]:
    return [turn.reward.total for turn in turns if turn.reward is not None]


SHARES = pytest.mark.parametrize("share", [0.1, 0.3])


def test_without_faults_all_goes_well() -> None:
    assert {episode.outcome for episode in played(0.0).values()} == {Outcome.OK}
    assert len(rewards(list(samples(0.0).values()))) == len(samples(0.0)) > TASKS


@SHARES
def test_each_fault_has_its_outcome_and_no_reward(share: float) -> None:
    episodes = played(share).values()
    ended = Counter(episode.outcome for episode in episodes)
    assert set(ended) == {Outcome.OK, *FAILURES}
    # Two calls start an episode, and each of at most two turns makes two more or none.
    assert share < 1 - ended[Outcome.OK] / TASKS < 1 - (1 - share) ** 6
    assert any(episode.first is None for episode in episodes)
    for turn in samples(share).values():
        assert (turn.reward is None) == (turn.outcome in FAILURES)
        assert (turn.after is None) == (turn.outcome in FAILURES)


@SHARES
def test_other_samples_keep_their_own_rewards_exactly(share: float) -> None:
    healthy, found = samples(0.0), samples(share)
    assert found.keys() < healthy.keys(), "a fault ends an episode, it never adds to one"
    for place, turn in found.items():
        same = healthy[place]
        assert (turn.state_key, turn.reply, turn.before) == (same.state_key, same.reply, same.before)
        if turn.outcome not in FAILURES:
            assert (turn.reward, turn.after, turn.end) == (same.reward, same.after, same.end)
            np.testing.assert_array_equal(turn.edited, same.edited)


@SHARES
@pytest.mark.parametrize("index", [0, 1])
def test_the_mean_reward_stays_within_its_confidence_interval(share: float, index: int) -> None:
    """Like with like: of turns that asked editor and judge. The others can't be struck, and so weigh
    more among what is left."""

    def asked(share: float) -> list[Turn]:
        return [turn for (_, at), turn in samples(share).items() if at == index and not turn.kept]

    mean = np.mean(rewards(asked(0.0)))
    interval = mean_interval(rewards(asked(share)))
    assert interval.n > 30
    assert interval.low <= mean <= interval.high
    zeros = [turn.reward.total if turn.reward else 0.0 for turn in asked(share)]
    assert mean_interval(zeros).high < mean, "had failures counted as 0, it would show"


def test_a_second_run_meets_the_same_faults_and_ends_the_same() -> None:
    def ends(episodes: dict[str, Episode]) -> dict[str, list[Any]]:
        return {
            name: [episode.outcome, *((t.outcome, t.reward, t.detail) for t in episode.turns)]
            for name, episode in episodes.items()
        }

    assert ends(play(0.3)) == ends(played(0.3))

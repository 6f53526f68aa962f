"""One batch of edits per step, siblings, and what a failure of one does to the others."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from plain import HalfJudge, HalfPainter, reply, task

from thinkedit.envs.editors.base import EditRequest
from thinkedit.envs.vector import ThinkEditVectorEnv
from thinkedit.errors import ConfigError, EditorError, JudgeError
from thinkedit.types import RGB, Episode, Outcome, Verdict


class Batches(HalfPainter):
    """Notes the size of each batch it is handed; refuses prompts that say so."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.down = False

    async def edit_many(self, requests: Sequence[EditRequest]) -> list[RGB | Exception]:
        self.batches.append(len(requests))
        return await super().edit_many(requests)

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        if self.down or "refuse" in prompt:
            raise EditorError("down" if self.down else "refused")
        return super().edit(source, prompt, seed=seed)


def make(num_envs: int, editor: HalfPainter | None = None, **more: object) -> ThinkEditVectorEnv:
    return ThinkEditVectorEnv(num_envs, editor=editor or Batches(), judge=HalfJudge(), **more)


def test_all_edits_of_a_step_are_one_batch() -> None:
    editor = Batches()
    env = make(4, editor)
    env.reset(seed=0)
    env.step([reply("paint it blue"), reply("paint it red"), "junk", reply("paint it green")])
    assert editor.batches == [4, 3]


def test_siblings_share_task_seed_and_first_edit() -> None:
    editor = Batches()
    env = make(6, editor, group_size=3)
    _, infos = env.reset(seed=0)
    assert len(set(infos["group"])) == 2
    assert list(infos["group"][:3]) == [infos["group"][0]] * 3
    assert len(set(infos["state_key"])) == 2
    assert len(editor.calls) == 2
    # Equal prompts of siblings are one edit too.
    env.step([reply("paint it blue")] * 2 + [reply("paint it red")] * 4)
    assert len(editor.calls) == 2 + 3


def test_siblings_stay_siblings_whatever_the_length_of_their_episodes() -> None:
    groups: dict[int, list[str]] = {0: [], 1: []}
    env = make(2, group_size=2, max_turns=2)
    _, infos = env.reset(seed=3)
    fresh = [True, True]
    for step in range(12):
        for k in (0, 1):
            if fresh[k]:
                groups[k].append(infos["group"][k])
        texts = [reply("paint it blue", 9, 9), f"junk {step}"]
        seen, _, terminated, truncated, infos = env.step(texts)
        fresh = [bool(seen["turn"][k] == 0) and not (terminated | truncated)[k] for k in (0, 1)]
    shared = min(len(groups[0]), len(groups[1]))
    assert shared >= 3
    assert groups[0][:shared] == groups[1][:shared]


def test_a_failed_edit_spoils_its_own_episode_only() -> None:
    finished: list[Episode] = []
    env = make(3, on_episode=finished.append)
    env.reset(options={"task": task()})
    _, rewards, terminated, truncated, infos = env.step(
        [reply("paint it blue"), reply("refuse this"), reply("paint it red badly")]
    )
    assert [math.isnan(reward) for reward in rewards] == [False, True, False]
    assert list(truncated) == [False, True, False]
    assert not terminated.any()
    assert list(infos["valid"]) == [True, False, True]
    assert list(infos["outcome"]) == ["ok", "editor_failed", "ok"]
    for numbers in (infos["scores"]["semantic"], infos["terms"]["critic"], infos["weights"]["critic"]):
        assert list(np.isnan(numbers)) == [False, True, False]
    assert [episode.outcome for episode in finished] == [Outcome.EDITOR_FAILED]
    _, rewards, _, _, infos = env.step([reply("paint it red"), "ignored", reply("paint it red")])
    assert rewards[1] == 0
    assert infos["valid"].all()


def test_a_hung_edit_is_late_alone_and_after_the_time_of_one() -> None:
    class Queue(HalfPainter):
        """Makes one edit at a time, and one never."""

        inline = False

        def __init__(self) -> None:
            super().__init__()
            self.turn = asyncio.Lock()

        async def edit_async(self, source: RGB, prompt: str, *, seed: int) -> RGB:
            if "hang" in prompt:
                await asyncio.sleep(60)
            async with self.turn:
                await asyncio.sleep(0.3)
            return self.edit(source, prompt, seed=seed)

    env = make(5, Queue(), overrides=["editor.timeout_s=0.6"])
    env.reset(options={"task": task()})
    began = time.monotonic()
    replies = [reply("hang"), *(reply(f"paint it red {'very ' * k}badly") for k in range(4))]
    _, rewards, _, _, infos = env.step(replies)
    assert [math.isnan(reward) for reward in rewards] == [True, False, False, False, False]
    assert infos["outcome"][0] == "timeout"
    assert infos["detail"][0].endswith("gave no answer within 0.6 s")
    assert time.monotonic() - began < 5 * 0.6


def test_a_start_that_fails_leaves_the_environment_usable() -> None:
    editor, finished = Batches(), list[Episode]()
    env = make(2, editor, max_turns=2, on_episode=finished.append)
    env.reset(seed=0)
    env.step([reply("paint it blue", 9, 9), "junk"])
    editor.down = True
    with pytest.raises(EditorError, match="down"):
        env.step(["ignored", "junk"])
    outcomes = [episode.outcome for episode in finished]
    assert outcomes == [Outcome.OK, *[Outcome.EDITOR_FAILED] * 3, Outcome.OK]
    with pytest.raises(EditorError, match="down"):
        env.reset()
    editor.down = False
    _, rewards, terminated, truncated, infos = env.step(["ignored", "ignored"])
    assert infos["valid"].all()
    assert not np.concatenate([rewards, terminated, truncated]).any()
    env.step([reply("paint it red"), reply("paint it red")])


def test_a_start_that_fails_for_one_sibling_does_not_part_them_for_good() -> None:
    class Flaky(HalfJudge):
        """The second verdict never comes. None is kept, so each sibling asks for itself."""

        def judge(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
            verdict = super().judge(source, edited, instruction)
            if len(self.calls) == 2:
                raise JudgeError("no idea")
            return replace(verdict, lasting=False)

    env = ThinkEditVectorEnv(2, editor=Batches(), judge=Flaky(), group_size=2, max_turns=1)
    groups = [list(env.reset(seed=0)[1]["group"])]
    for _ in range(2):
        env.step(["junk", "junk"])
        groups.append(list(env.step(["ignored", "ignored"])[4]["group"]))
    assert [one == two for one, two in groups] == [False, True, True]


def test_each_environment_wants_an_action() -> None:
    env = make(2)
    env.reset(seed=0)
    for actions in (["junk"], ["junk"] * 3):
        with pytest.raises(ConfigError, match=f"{len(actions)} actions for 2 environments"):
            env.step(actions)


def test_finished_episodes_are_handed_over_whole() -> None:
    finished: list[Episode] = []
    env = make(2, max_turns=2, on_episode=finished.append)
    env.reset(seed=0)
    for _ in range(5):
        env.step(["junk", reply("paint it blue", 9, 9)])
    assert sorted(len(episode.turns) for episode in finished) == [1, 1, 1, 2, 2]
    assert len({episode.uid for episode in finished}) == 5


def test_the_same_seed_gives_the_same_run_and_neighbours_differ() -> None:
    def play() -> tuple[list[str], list[float]]:
        env = make(3)
        _, infos = env.reset(seed=9)
        tasks, rewards = list(infos["task"]), []
        for _ in range(4):
            rewards += list(env.step([reply("paint it blue")] * 3)[1])
        env.close()
        env.close()
        return tasks, rewards

    one, two = play(), play()
    assert one == two
    assert len(set(one[0])) == 3


def test_pictures_and_spaces_come_in_batches() -> None:
    env = make(2, render_mode="rgb_array")
    seen, _ = env.reset(seed=0)
    assert seen in env.observation_space
    assert env.action_space.sample() in env.action_space
    frames = env.render()
    assert frames is not None
    assert [frame.dtype for frame in frames] == [np.uint8] * 2
    assert make(1).render() is None


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of group_size"):
        make(5, group_size=2)
    with pytest.raises(ConfigError, match="2 seeds for 3"):
        make(3).reset(seed=[1, 2])

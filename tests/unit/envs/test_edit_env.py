"""The environment's own manners: options, info, failures, pictures, and who closes what."""

import asyncio
import json
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from plain import Broken, BrokenJudge, HalfJudge, HalfPainter, raising, reply, task

from thinkedit.configs.load import load_config
from thinkedit.envs.edit_env import START_ATTEMPTS, ThinkEditEnv
from thinkedit.envs.editors.base import Editor
from thinkedit.errors import ConfigError, DataError, EditorError, JudgeError, UnknownName
from thinkedit.rewards.judges.base import Judge
from thinkedit.types import Outcome, Scores, StoredState, Verdict


def make(editor: Editor | None = None, judge: Judge | None = None, **more: object) -> ThinkEditEnv:
    env = gymnasium.make(
        "thinkedit/Edit-v0", editor=editor or HalfPainter(), judge=judge or HalfJudge(), **more
    ).unwrapped
    assert isinstance(env, ThinkEditEnv)
    return env


def test_a_task_of_the_users_own_can_be_played() -> None:
    env = make()
    start = task("make it red badly")
    seen, info = env.reset(options={"task": start, "editor_seed": 5})
    assert seen in env.observation_space
    assert (seen["instruction"], seen["prompt"]) == (start.instruction, start.instruction)
    assert (info["task"], info["editor_seed"], info["group"]) == ("t0", 5, "t0/5")
    assert info["scores"]["semantic"] == 5.0
    seen, reward, terminated, truncated, info = env.step(reply("paint it red", 5, 9))
    assert reward == pytest.approx(0.125 + 0.625 + 0.1875 * 0.75 + 0.0625 * 0.5)
    assert (terminated, truncated, info["valid"], info["outcome"]) == (False, False, True, "ok")
    assert info["predicted"] == {"semantic": 5.0, "quality": 9.0}
    assert (info["scores_before"]["semantic"], info["scores"]["semantic"]) == (5.0, 10.0)
    assert info["terms"]["critic"] == 1.0


def test_a_picture_with_an_instruction_is_enough_of_a_task() -> None:
    env, source = make(), task().source
    options = {"source": source, "instruction": "make it blue"}
    seen, info = env.reset(options=options)
    assert np.array_equal(seen["source"], source)
    assert info["split"] == "user"
    assert info["task"] == env.reset(options=options)[1]["task"]
    assert info["task"] != env.reset(options={**options, "instruction": "make it red"})[1]["task"]


def test_a_stored_state_starts_without_an_edit() -> None:
    editor, start = HalfPainter(), task()
    verdict = Verdict(scores=Scores(4, 9), judge_id="half-judge@1", prompt_hash="none")
    state = StoredState(task=start, edited=start.source, prompt="make it redder", verdict=verdict)
    for env, options in (
        (make(editor), {"state": state}),
        (make(editor, states=[state]), None),
    ):
        seen, info = env.reset(seed=1, options=options)
        assert seen["prompt"] == "make it redder"
        assert info["scores"]["semantic"] == 4
    assert not editor.calls


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"taks": 1}, UnknownName, "task"),
        ({"task": "make it red"}, ConfigError, "must be a Task"),
        ({"task": task(), "index": 3}, ConfigError, r"\['index', 'task'\] each name a start"),
        ({"source": np.zeros((4, 4, 3), np.uint8)}, ConfigError, "go together"),
        ({"source": np.zeros((4, 4), np.uint8), "instruction": "a"}, DataError, "shape"),
        ({"source": np.zeros((90, 90, 3), np.uint8), "instruction": "a"}, DataError, "max_pixels"),
    ],
)
def test_a_wrong_reset_option_is_told(options: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make(max_pixels=8000).reset(options=options)


def test_what_is_handed_in_replaces_what_cannot_be_built_here() -> None:
    env = make(
        overrides=["judge.name=viescore", "judge.options={api_key_env: NO_SUCH_KEY}", "editor.name=http"]
    )
    _, info = env.reset(options={"task": task()})
    assert (info["editor"], info["judge"]) == ("half-painter@1", "half-judge@1")


def test_an_index_names_a_task_of_the_split() -> None:
    env = gymnasium.make("thinkedit/Edit-v0", split="test")
    uids = [env.reset(seed=seed, options={"index": 3})[1]["task"] for seed in (0, 1)]
    assert uids[0] == uids[1]
    assert "test" in uids[0]


def test_a_failure_is_nan_and_never_a_number() -> None:
    for env, outcome in (
        (make(Broken(raising(RuntimeError("boom")))), "editor_failed"),
        (make(judge=BrokenJudge(raising(JudgeError("refused")))), "judge_failed"),
    ):
        before, _ = env.reset(options={"task": task()})
        seen, reward, terminated, truncated, info = env.step(reply("paint it blue"))
        assert math.isnan(float(reward))
        assert (terminated, truncated) == (False, True)
        assert (info["valid"], info["outcome"], info["end"]) == (False, outcome, "failed")
        assert info["detail"]
        assert (info["terms"], info["scores"]) == ({}, {})
        assert np.array_equal(seen["edited"], before["edited"])


def test_info_is_equal_for_equal_steps_and_is_plain_data() -> None:
    infos = []
    for _ in range(2):
        env = make()
        env.reset(seed=0, options={"task": task()})
        infos.append(json.dumps(env.step(reply("paint it blue"))[4], sort_keys=True))
    assert infos[0] == infos[1]
    assert not [name for name in json.loads(infos[0]) if name.endswith("_s") or "time" in name]


def test_observations_share_no_memory() -> None:
    env = make()
    one, _ = env.reset(options={"task": task()})
    two, *_ = env.step("junk")
    for name in ("source", "edited"):
        one[name][:] = 0
        assert two[name].any()


def test_a_task_whose_first_edit_fails_is_passed_over_and_kept() -> None:
    class Moody(HalfPainter):
        def edit(self, source: np.ndarray, prompt: str, *, seed: int) -> np.ndarray:
            if len(self.calls) < START_ATTEMPTS - 1:
                self.calls.append((prompt, seed))
                raise EditorError("503")
            return super().edit(source, prompt, seed=seed)

    env = make(Moody())
    env.reset(seed=0)
    assert [episode.outcome for episode in env.failed_starts] == [Outcome.EDITOR_FAILED] * 2
    assert env.failed_starts[0].task.uid != env.session.task.uid
    env.reset(seed=0)
    assert env.failed_starts == []


def test_a_dead_editor_is_an_error_of_reset() -> None:
    env = make(Broken(raising(EditorError("503")), good=0))
    with pytest.raises(EditorError, match="503"):
        env.reset(seed=0)
    assert len(env.failed_starts) == START_ATTEMPTS
    with pytest.raises(EditorError):
        env.reset(options={"task": task()})
    assert len(env.failed_starts) == 1


def test_the_contact_sheet_keeps_its_size_through_an_episode() -> None:
    env = make(render_mode="rgb_array", max_turns=2)
    env.reset(options={"task": task("make it red, くま 🎨 " + "very " * 99)})
    frames = [env.render()]
    for text in (reply("paint it blue"), "junk"):
        env.step(text)
        frames.append(env.render())
    assert {(frame.dtype, frame.shape) for frame in frames} == {(np.dtype(np.uint8), frames[0].shape)}
    assert not np.array_equal(frames[0], frames[1])
    assert make().render() is None


def test_an_editor_that_was_handed_in_stays_open() -> None:
    editor = HalfPainter()
    env = make(editor)
    env.reset(seed=0)
    env.close()
    env.close()
    assert editor.closed == 0
    env.reset(seed=0)


def test_the_env_works_inside_a_running_event_loop() -> None:
    async def notebook() -> float:
        env = make()
        env.reset(options={"task": task()})
        reward = float(env.step(reply("paint it blue"))[1])
        env.close()
        return reward

    assert asyncio.run(notebook()) > 0


def test_recipes_overrides_and_objects_set_it_up() -> None:
    env = gymnasium.make("thinkedit/Edit-v0", overrides=["episode.max_turns=4", "reward=released"])
    assert env.observation_space["turn"].n == 5  # type: ignore[index]
    assert env.unwrapped.setup.parts.rubric.weights["semantic"] == 0.5  # type: ignore[attr-defined]
    config = replace(load_config("demo"), name="mine")
    assert make(config=config).setup.parts.config.name == "mine"
    with pytest.raises(ConfigError, match="overrides"):
        make(config=config, overrides=["seed=1"])
    with pytest.raises(UnknownName, match="rgb_array"):
        ThinkEditEnv(render_mode="rgb_arry")
    with pytest.raises(ConfigError, match="states"):
        make(states=[])


def test_one_step_episodes_terminate() -> None:
    env = gymnasium.make("thinkedit/EditStep-v0", editor=HalfPainter(), judge=HalfJudge())
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step("junk")
    assert (terminated, truncated, info["error"]) == (True, False, "missing_think")

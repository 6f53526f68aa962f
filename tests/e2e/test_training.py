"""A study in small on verl: warm start, two GRPO steps, cells and page; then a resume, and what all left.

Each start of verl costs a minute, so that one run proves many things; the tests read what it left.
"""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thinkedit.actors.store import TrajectoryStore
from thinkedit.configs.load import load_config
from thinkedit.configs.schema import Config
from thinkedit.envs.build import Parts
from thinkedit.learner.grpo import run_grpo
from thinkedit.learner.launch import TrainingResult, latest_checkpoint
from thinkedit.learner.tokens import forbidden_token_ids
from thinkedit.types import Episode

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]

TASKS, GROUP, STEPS = 4, 4, 2
VALIDATION = 6
REHEARSED = 8
SETTINGS = (
    "sft.epochs=1",
    "sft.demonstrations=128",
    "sft.batch_size=16",
    "sft.micro_batch_size=16",
    f"grpo.tasks_per_step={TASKS}",
    f"grpo.group_size={GROUP}",
    "grpo.save_every=100",
    "grpo.interpolation=0.5",
    f"grpo.rehearsal={{batch_size: {REHEARSED}, weight: 0.5}}",
    "rollout.workers=2",
    "judge.canaries={every: 2, pairs: 5}",
    f"grpo.validate_every={STEPS}",
    f"grpo.validate_tasks={VALIDATION}",
)


def settings(*more: str) -> Config:
    return load_config("demo", [*SETTINGS, *more])


@dataclass
class Trained:
    study: Path
    sft: Path
    grpo: Path
    resumed: TrainingResult
    reported: list[int]  # steps of the second start

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.grpo / "metrics.jsonl").read_text().splitlines()]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Of the steps; line 0 is the look before the first one."""
        return self.lines[1:]

    @property
    def episodes(self) -> list[Episode]:
        return list(TrajectoryStore(self.grpo / "trajectories").read())


def study(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from thinkedit.cli import app; app()"
    chosen = ["--quick", "--seeds", "1", "--only", "modes", f"run_dir={folder}", f"grpo.steps={STEPS}"]
    return subprocess.run(
        [sys.executable, "-c", code, "study", *chosen, *SETTINGS],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("study")
    done = study(folder)
    assert done.returncode == 0, done.stderr[-4000:]
    reported: list[int] = []

    def on_step(metrics: Mapping[str, float]) -> None:
        reported.append(int(metrics["step"]))

    seed = folder / "seed-0"
    sft, grpo = seed / "sft" / "policy", seed / "rl" / "grpo"
    demonstrations = seed / "data" / "rehearsal.parquet"
    resumed = run_grpo(
        settings(f"grpo.steps={STEPS + 1}"), sft, grpo, demonstrations=demonstrations, on_step=on_step
    )
    return Trained(folder, seed / "sft", grpo, resumed, reported)


def test_the_warm_start_learns(trained: Trained) -> None:
    lines = [json.loads(line) for line in (trained.sft / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]


def test_every_step_is_logged_once_over_both_starts_and_reported_by_its_own(trained: Trained) -> None:
    assert trained.reported == [3]
    assert [line["step"] for line in trained.lines] == [0, 1, 2, 3]
    assert trained.resumed.steps == 3


def test_held_out_tasks_are_looked_at_and_are_no_training_data(trained: Trained) -> None:
    looked = [line.get("val/samples/episodes") for line in trained.lines]
    # Once before the first step, whatever was resumed; every second step; after the last one.
    assert looked == [VALIDATION, None, VALIDATION, VALIDATION]
    starts = [line["val/episode/overall_start/mean"] for line in trained.lines if line["step"] != 1]
    assert starts == [starts[0]] * 3, "the same tasks with the same luck"
    assert 0 <= starts[0] <= 10
    held_out = list(TrajectoryStore(trained.grpo / "validation").read())
    by_step = [{(e.task.uid, e.seed) for e in held_out if e.step == step} for step in (0, 2, 3)]
    assert by_step[0] == by_step[1] == by_step[2]
    assert {e.task.split for e in held_out} == {"val"}
    assert {e.task.split for e in trained.episodes} == {"train"}


def test_weights_really_move(trained: Trained) -> None:
    """vLLM starts on dummy weights; equal probabilities can only come from the trainer's.

    Step 1 shows the first transfer, step 2 the transfer after an update, step 3 that of a
    checkpoint's weights.
    """
    verl = load_yaml(trained.grpo / "verl.yaml")
    assert verl["actor_rollout_ref"]["rollout"]["load_format"] == "dummy"
    gaps = [line["gap/prob_max"] for line in trained.metrics]
    assert len(gaps) == STEPS + 1
    assert max(gaps) < 1e-3


def test_the_judge_is_asked_about_canaries_at_each_start_and_every_second_step(trained: Trained) -> None:
    assert [line.get("judge/canaries/accuracy") for line in trained.metrics] == [1.0, 1.0, 1.0]
    assert [line.get("judge/canaries/failed") for line in trained.metrics] == [0.0, 0.0, 0.0]


def test_the_policy_left_its_start(trained: Trained) -> None:
    assert trained.metrics[0]["actor/kl_loss"] == pytest.approx(0.0, abs=1e-6)
    start, end = weights(trained.sft / "policy"), weights(trained.resumed.policy)
    assert start.keys() == end.keys()
    assert any(not np.array_equal(start[name], end[name]) for name in start)
    checkpoint = latest_checkpoint(trained.grpo / "checkpoints")
    whole = weights(checkpoint / "actor" / "huggingface")
    for name in start:  # the export goes half of the way, the checkpoint all of it
        np.testing.assert_allclose(end[name], (start[name] + whole[name]) / 2, atol=1e-6)


def test_critiques_are_rehearsed_at_the_weights_that_the_policy_has(trained: Trained) -> None:
    losses = [line["actor/rehearsal_loss"] for line in trained.metrics]
    chosen = np.random.default_rng(0).permutation(STEPS * REHEARSED)[:REHEARSED]  # seed 0's first update
    assert losses[0] == pytest.approx(
        critique_loss(trained.sft / "policy", trained.study / "seed-0", chosen), rel=1e-4
    )
    assert losses[1] != losses[0]


def critique_loss(policy: Path, seed: Path, chosen: Any) -> float:
    """Mean -log p of the demonstrations' tokens up to the score's end, by transformers alone."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = (
        AutoModelForImageTextToText.from_pretrained(policy),
        AutoProcessor.from_pretrained(policy),
    )
    forbidden = torch.tensor(forbidden_token_ids(processor.tokenizer))  # the policy can't say them
    rows = pq.read_table(seed / "data" / "rehearsal.parquet").take(chosen).to_pylist()
    total = count = 0.0
    for row in rows:
        asked, reply = (message["content"] for message in row["messages"])
        pictures = [Image.open(io.BytesIO(image["bytes"])) for image in row["images"]]
        content = [{"type": "image"}] * len(pictures) + [
            {"type": "text", "text": asked.replace("<image>", "")}
        ]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        critique = reply[: reply.index("</score>") + len("</score>")]
        inputs = processor(text=[prompt + critique], images=pictures, return_tensors="pt")
        length = len(processor.tokenizer(critique, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logits = model(**inputs).logits[0, -length - 1 : -1]
            log_probs = logits.index_fill(-1, forbidden, -torch.inf).log_softmax(-1)
        total -= float(log_probs.gather(1, inputs["input_ids"][0, -length:, None]).sum())
        count += length
    return total / count


def test_one_update_a_step_whatever_the_number_of_turns(trained: Trained) -> None:
    assert [line["actor/updates"] for line in trained.metrics] == [1, 1, 1]


def test_every_episode_is_stored_with_the_version_that_sampled_it(trained: Trained) -> None:
    by_step: dict[int, list[Episode]] = {}
    for episode in trained.episodes:
        by_step.setdefault(episode.step, []).append(episode)
    assert {step: len(episodes) for step, episodes in by_step.items()} == dict.fromkeys(
        (1, 2, 3), TASKS * GROUP
    )
    for step, episodes in by_step.items():
        assert {s.policy_version for e in episodes for s in e.sampling} == {step - 1}


def test_siblings_share_task_seed_and_first_edit(trained: Trained) -> None:
    groups: dict[str, list[Episode]] = {}
    for episode in trained.episodes:
        groups.setdefault(episode.group, []).append(episode)
    assert all(len(siblings) == GROUP for siblings in groups.values())
    for siblings in groups.values():
        assert len({(e.task.uid, e.seed) for e in siblings}) == 1
        assert all(np.array_equal(e.first_edit, siblings[0].first_edit) for e in siblings)


def test_a_resumed_run_goes_on_with_the_next_tasks(trained: Trained) -> None:
    parts = Parts.from_config(settings())
    seen = [{e.task.uid for e in trained.episodes if e.step == step} for step in (1, 2, 3)]
    expected = [parts.tasks.task("train", index).uid for index in range(TASKS * (STEPS + 1))]
    assert seen == [set(expected[i : i + TASKS]) for i in range(0, len(expected), TASKS)]


def test_logged_rewards_are_those_of_the_stored_turns(trained: Trained) -> None:
    for line in trained.metrics:
        rewards = [
            t.reward.total
            for e in trained.episodes
            if e.step == line["step"]
            for t in e.turns
            if t.reward is not None
        ]
        assert line["reward/total/mean"] == pytest.approx(float(np.mean(rewards)), abs=1e-6)


def test_a_training_episode_is_the_environments_own(trained: Trained) -> None:
    """Its replies, typed into the Gymnasium environment's session, give the same episode to the byte."""
    parts = Parts.from_config(settings())

    async def replay(episode: Episode) -> Episode:
        session = parts.session()
        await session.start(episode.task, episode.seed)
        for turn in episode.turns:
            await session.step(turn.reply)
        return session.episode()

    for episode in trained.episodes[:12]:
        again = asyncio.run(replay(episode))
        assert again.first == episode.first
        for new, old in zip(again.turns, episode.turns, strict=True):
            assert np.array_equal(new.edited, old.edited)
            for name in ("prompt", "before", "after", "reward", "outcome", "end", "state_key"):
                assert getattr(new, name) == getattr(old, name)


def test_the_study_plays_its_cells_writes_a_page_and_then_has_nothing_left_to_do(trained: Trained) -> None:
    cells = {path.stem: path for path in (trained.study / "seed-0" / "cells").glob("*.jsonl")}
    experts = {"naive_expert", "naive_before", "naive_before_while"}
    assert set(cells) == {"rl", "rl_before", "rl_before_while"} | experts
    rows = [json.loads(line) for line in cells["rl"].read_text().splitlines()]
    assert len(rows) == 8
    assert all(0 <= score <= 10 for row in rows for pair in row["judged"] for score in pair)
    page = (trained.study / "study.html").read_text()
    assert "Think before the edit, while editing, or both?" in page
    assert "How many edits pay?" not in page  # some of its cells were played, not all
    assert "mean nothing" in page

    written = {path: path.stat().st_mtime_ns for path in cells.values()}
    with ExitStack() as restored:  # the cells alone can be counted anew
        for model in (trained.sft, trained.grpo.parent):
            model.rename(model.with_name(model.name + ".away"))
            restored.callback(model.with_name(model.name + ".away").rename, model)
        again = study(trained.study)
        assert again.returncode == 0, again.stderr[-4000:]
        assert {path: path.stat().st_mtime_ns for path in cells.values()} == written
        assert not trained.sft.exists()


def load_yaml(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    loaded = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()}


def weights(policy: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    loaded: dict[str, Any] = load_file(policy / "model.safetensors")
    return loaded

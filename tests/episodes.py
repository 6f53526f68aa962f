"""Real episodes for tests: the world, its editor and judge, the session, and a scripted expert.

Nothing here is faked. Two things are added on purpose: a thinker that now and then garbles its
reply, and an editor that now and then has no worker free.
"""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from thinkedit.actors.play import Context, Reply, play_many
from thinkedit.actors.policy import ScriptedPolicy
from thinkedit.actors.store import TrajectoryStore
from thinkedit.configs.load import load_config, save_config
from thinkedit.configs.schema import Config
from thinkedit.envs.build import Parts
from thinkedit.envs.editors.base import Editor
from thinkedit.envs.world.experts import AwareExpert, Expert, NaiveExpert
from thinkedit.errors import EditorError
from thinkedit.evals.run import RunFolder
from thinkedit.types import RGB, Episode, Observation, Sampling

GARBLED: tuple[Callable[[str], str], ...] = (
    lambda reply: reply.replace("</score>", "", 1),
    lambda reply: reply.replace('"quality"', '"beauty"', 1),
    lambda reply: reply + " That is all.",
    lambda reply: "",
)


class Sloppy:
    """Replies as an expert does, and garbles a share of its replies."""

    def __init__(self, expert: Expert, share: float, version: int = 0) -> None:
        self._expert, self._share, self._version = ScriptedPolicy(expert), share, version

    async def reply(self, observation: Observation, context: Context) -> Reply:
        text = (await self._expert.reply(observation, context)).text
        rng = random.Random(f"{context.task.uid}/{context.seed}/{observation.turn}/{self._version}")
        if rng.random() < self._share:
            text = rng.choice(GARBLED)(text)
        tokens = tuple(text.encode())[:40]
        logprobs = tuple(-rng.random() for _ in tokens)
        return Reply(
            text,
            Sampling(prompt_ids=(1, 2, 3), token_ids=tokens, logprobs=logprobs, policy_version=self._version),
        )


class Flaky(Editor):
    """Refuses a share of the edits, always the same ones."""

    name, inline = "flaky", True

    def __init__(self, editor: Editor, share: float) -> None:
        self._editor, self._share = editor, share

    def edit(self, source: RGB, prompt: str, *, seed: int) -> RGB:
        if zlib.crc32(f"{prompt}/{seed}".encode()) % 1000 < 1000 * self._share:
            raise EditorError("the editor answered 503: no worker is free")
        return self._editor.edit(source, prompt, seed=seed)


def play(
    count: int,
    *,
    expert: type[Expert] = NaiveExpert,
    split: str = "train",
    group_size: int = 1,
    garbled: float = 0.0,
    failing: float = 0.0,
    step: int = -1,
    config: Config | None = None,
) -> list[Episode]:
    """`count` finished episodes, siblings of `group_size` side by side."""
    parts = Parts.from_config(config or load_config("demo", ["reward=balanced"]))
    parts = replace(parts, editor=Flaky(parts.editor, failing))
    first = max(step, 0) * count
    starts = [
        (parts.tasks.task(split, first + i // group_size), first + i // group_size) for i in range(count)
    ]

    async def collect() -> list[Episode]:
        policy = Sloppy(expert(parts.protocol), garbled, max(step, 0))
        return [episode async for episode in play_many(parts.session, starts, policy)]

    episodes = sorted(asyncio.run(collect()), key=lambda episode: episode.group)
    for episode in episodes:
        episode.step = step
    return episodes


def make_run(
    root: Path,
    *,
    tasks: int = 24,
    steps: int = 4,
    overrides: tuple[str, ...] = (),
) -> RunFolder:
    """A finished run: two experts stand in for the thinker before and after training."""
    config = load_config("demo", ["reward=balanced", f"eval.tasks={tasks}", "eval.bootstrap=200", *overrides])
    run = RunFolder(root)
    root.mkdir(parents=True)
    save_config(config, root)
    with TrajectoryStore(run.trajectories) as store:
        for step in range(1, steps + 1):
            for episode in play(12, group_size=4, garbled=0.1, failing=0.05, step=step, config=config):
                store.append(episode)
            store.flush()
    arms: dict[str, dict[str, Any]] = {
        "sft": {"expert": NaiveExpert, "garbled": 0.02},
        "grpo": {"expert": AwareExpert},
    }
    for arm, options in arms.items():
        with TrajectoryStore(run.arm(arm), writer=arm) as store:
            for episode in play(tasks, split="test", config=config, **options):
                store.append(episode)
    lines = ({"step": step, "gap/prob_max": 1e-6 * step, "timing_s/gen": 2.0} for step in range(1, steps + 1))
    run.metrics("grpo").parent.mkdir(exist_ok=True)
    run.metrics("grpo").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.add_seconds("sft", 12.0)
    run.add_seconds("grpo", 34.5)
    return run

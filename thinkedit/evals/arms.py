"""Plays the arms of an evaluation: the same held-out tasks and seeds under different thinkers.

Arms: `naive_expert` (good practice, does not know the editor's quirks), `aware_expert` (knows
them: an upper bound), and any policy folder under its own name. The single edit needs no arm of
its own: every episode starts with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from thinkedit.actors.play import Policy, play_many
from thinkedit.actors.store import TrajectoryStore
from thinkedit.envs.build import Parts
from thinkedit.envs.world.experts import AwareExpert, Expert, NaiveExpert

EXPERTS: dict[str, type[Expert]] = {"naive_expert": NaiveExpert, "aware_expert": AwareExpert}


async def play_arm(
    parts: Parts,
    arm: str,
    folder: Path,
    *,
    policy_path: Path | None = None,
    split: str = "test",
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Play `config.eval.tasks` held-out tasks under one arm and store the episodes in `folder`.

    Args:
        arm: a scripted expert, or any name together with `policy_path`.
        folder: a trajectory store; written whole or not at all.

    Returns:
        The number of episodes stored.
    """
    config = parts.config
    starts = [
        (parts.tasks.task(split, index), config.eval.seed + index) for index in range(config.eval.tasks)
    ]
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted evaluation left
    store = TrajectoryStore(partial, writer=arm)
    done = 0
    async with _policy(parts, arm, policy_path) as policy:
        async for episode in play_many(parts.session, starts, policy, concurrency=config.rollout.concurrency):
            episode.tags["arm"] = arm
            store.append(episode)
            progress(done := done + 1)
    store.close()
    partial.rename(folder)
    return done


def _policy(parts: Parts, arm: str, path: Path | None) -> Any:
    """An async context manager that gives the arm's policy."""
    from thinkedit.actors.policy import ScriptedPolicy, VLLMPolicy

    if path is None:
        policy: Policy = ScriptedPolicy(EXPERTS[arm].from_parts(parts), seed=parts.config.eval.seed)
        return nullcontext(policy)
    config = parts.config
    return VLLMPolicy(
        path,
        parts.protocol,
        config.policy,
        config.rollout,
        config.cluster,
        temperature=config.eval.temperature,
    )

"""Half of an editor's replicas are killed in the middle of a rollout step."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from served_editor import ServedEditor, slow
from slow_editor import Line, record

pytest.importorskip("ray")

from thinkedit.actors.play import play_many
from thinkedit.actors.policy import ScriptedPolicy
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.world.experts import NaiveExpert
from thinkedit.types import Episode, Outcome

pytestmark = [pytest.mark.chaos, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

REPLICAS = 4
TASKS = 24
SIBLINGS = 2
DELAY_S = 0.5


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "edits"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[ServedEditor]:
    options = slow(delay_s=DELAY_S, log=log, replicas=REPLICAS)
    with ServedEditor(tmp_path_factory.mktemp("served"), *options) as running:
        yield running


def played(options: Sequence[str]) -> list[Episode]:
    """A step's episodes in the order of their tasks: each task by two siblings."""
    parts = Parts.from_config(load_config("demo", options))
    starts = [(parts.tasks.task("train", index // SIBLINGS), 0) for index in range(TASKS * SIBLINGS)]

    async def collect() -> list[Episode]:
        policy = ScriptedPolicy(NaiveExpert(parts.protocol))
        return [episode async for episode in play_many(parts.session, starts, policy, concurrency=16)]

    try:
        return sorted(asyncio.run(collect()), key=lambda episode: episode.group)
    finally:
        parts.close()


def test_the_step_completes_and_no_edit_is_made_more_than_once_too_often(
    served: ServedEditor, log: Path
) -> None:
    before = record(log)
    began, trials = len(before), {line.edit for line in before}  # which new replicas make too
    killed: list[int] = []

    def kill_in_the_middle() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = record(log)[began:]
            if sum(line.moment == "end" for line in lines) >= REPLICAS:
                at_work = under_way(lines)
                if len(at_work) == REPLICAS:
                    killed.extend(at_work[: REPLICAS // 2])
                    for pid in killed:
                        os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(0.01)

    async def both() -> list[Episode]:
        killing = asyncio.to_thread(kill_in_the_middle)
        playing = asyncio.to_thread(
            played, ["editor=http", f"editor.options.urls=[{served.url}]", "editor.options.binary=true"]
        )
        return (await asyncio.gather(playing, killing))[0]

    episodes = asyncio.run(both())
    assert len(killed) == REPLICAS // 2
    assert [episode.outcome for episode in episodes] == [Outcome.OK] * TASKS * SIBLINGS

    lines = [line for line in record(log)[began:] if line.edit not in trials]
    begun = Counter(line.edit for line in lines if line.moment == "begin")
    finished = Counter(line.edit for line in lines if line.moment == "end")
    assert set(begun) == set(finished)
    assert max(begun.values()) <= 2
    assert sum(begun.values()) - len(begun) <= len(killed), "only what the dead had in hand is made again"

    healthy = played([])
    for found, same in zip(episodes, healthy, strict=True):
        assert [(turn.reply, turn.reward, turn.after) for turn in found.turns] == [
            (turn.reply, turn.reward, turn.after) for turn in same.turns
        ]


def under_way(lines: Sequence[Line]) -> list[int]:
    """Processes that are making an edit."""
    balance = Counter[int]()
    for line in lines:
        balance[line.pid] += 1 if line.moment == "begin" else -1
    return sorted(pid for pid, edits in balance.items() if edits > 0)

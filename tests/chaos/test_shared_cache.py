"""Several processes share one cache directory; some are killed, some stand still, some evict at once."""

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from cache_worker import SOURCE, Logging, Worker
from plain import Insists
from server_process import ServerProcess

from thinkedit.actors.store import TrajectoryStore
from thinkedit.configs.load import load_config
from thinkedit.envs.build import Parts
from thinkedit.envs.editors.base import EditRequest
from thinkedit.envs.editors.cache import CachedEditor
from thinkedit.envs.services import Services
from thinkedit.envs.world.judge import WorldJudge
from thinkedit.errors import ServiceTimeout
from thinkedit.evals.arms import play_arm
from thinkedit.types import Outcome

pytestmark = pytest.mark.chaos


def wait_for_edits(worker: Worker, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(worker.edits) < count:
        assert time.monotonic() < deadline, "no edit began"
        time.sleep(0.02)


def test_four_processes_with_eight_siblings_each_make_each_edit_once(tmp_path: Path) -> None:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(tmp_path / "cache", [1, 2, 3], pause_s=0.3, siblings=8))
            for _ in range(4)
        ]
        figures = [worker.end() for worker in [worker.begin() for worker in workers]]
    assert sorted(workers[0].edits) == [1, 2, 3]
    assert sum(each["misses"] for each in figures) == 3
    assert sum(each["misses"] + each["hits"] + each["joined"] for each in figures) == 4 * 8 * 3
    assert not list(tmp_path.rglob("*.lock"))


def test_when_the_process_that_makes_it_is_killed_another_takes_over(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    with Worker(root, [1], pause_s=3600) as victim, Worker(root, [1]) as heir:
        victim.begin()
        wait_for_edits(victim, 1)
        heir.begin()
        time.sleep(0.5)
        assert heir.edits == [1], "it must wait for the one who has begun"
        victim.process.send_signal(signal.SIGKILL)
        assert heir.end()["misses"] == 1
    assert heir.edits == [1, 1]
    assert not list(root.rglob("*.lock"))


async def test_one_that_stands_still_costs_the_others_a_timeout_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    with Worker(root, [1], pause_s=0.1) as still:
        editor = CachedEditor(Logging(still.log, 0.0), root)
        services = Services(editor, WorldJudge(), edit_timeout_s=0.5, judge_timeout_s=1.0)
        still.begin()
        wait_for_edits(still, 1)
        os.kill(still.process.pid, signal.SIGSTOP)
        answers = await asyncio.gather(
            services.call(EditRequest(SOURCE, "x", 1)), services.call(EditRequest(SOURCE, "x", 2))
        )
        os.kill(still.process.pid, signal.SIGCONT)
        assert isinstance(answers[0], ServiceTimeout)
        np.testing.assert_array_equal(answers[1], SOURCE ^ np.uint8(2))  # type: ignore[arg-type]
        still.end()
    np.testing.assert_array_equal(await editor.edit_async(SOURCE, "x", seed=1), SOURCE ^ np.uint8(1))
    assert sorted(still.edits) == [1, 2]


async def test_a_second_identical_evaluation_makes_no_call(tmp_path: Path) -> None:
    with ServerProcess("edit_server.py") as editor, ServerProcess("chat_server.py") as judge:
        overrides = [
            "eval.tasks=12",
            "editor=http",
            f"editor.options.urls=[{editor.url}]",
            f"editor.cache_dir={tmp_path}/edits",
            "judge=viescore",
            f"judge.options.base_url={judge.url}/v1",
            "judge.options.api_key_env=null",
            f"judge.cache_dir={tmp_path}/verdicts",
        ]
        rewards, calls = [], []
        for name in ("first", "second"):
            parts = Parts.from_config(load_config("demo", overrides))
            await play_arm(parts, "insists", Insists(), tmp_path / name)
            parts.close()
            episodes = TrajectoryStore(tmp_path / name).read()
            rewards.append({e.task.uid: [(t.reward, t.outcome) for t in e.turns] for e in episodes})
            calls.append((editor.calls(), judge.calls()))
    assert calls[0][0] > 12
    assert calls[0] == calls[1]
    assert rewards[0] == rewards[1]
    assert all(outcome is Outcome.OK for turns in rewards[0].values() for _, outcome in turns)


def test_two_processes_that_evict_at_once_lose_no_picture_they_hand_out(tmp_path: Path) -> None:
    root, room = tmp_path / "cache", 12 * 1024  # of about sixteen pictures
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(root, seeds, max_bytes=room))
            for seeds in (list(range(80)) * 2, list(range(40, 120)) * 2)
        ]
        for worker in [worker.begin() for worker in workers]:
            worker.end()
    kept = sum(path.stat().st_size for path in root.rglob("*.png"))
    assert room // 2 < kept <= room
    assert kept <= int((root / "size").read_text()) <= room
    assert len(workers[0].edits) > 200, "with so little room most are made again"
    assert not [*root.rglob("*.lock"), *root.rglob("*.partial")]

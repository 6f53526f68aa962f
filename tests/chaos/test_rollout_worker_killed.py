"""A rollout worker that is killed ends the run with a reason; nobody waits for its episodes for ever."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from thinkedit.actors.manager import RolloutWorkerDied, ThinkEditManager, ThinkEditWorker
from thinkedit.learner.replay import EagerReplayBuffer

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


@ray.remote
class Worker:
    """As far as the manager's look at it goes."""

    async def stay(self) -> None:
        await ThinkEditWorker.stay(self)

    async def alive(self) -> bool:
        return True


class Manager(ThinkEditManager):
    def __init__(self, workers: list[Any]) -> None:
        self.agent_loop_workers, self._lives = workers, []


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_whoever_waits_for_its_episodes_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [Worker.remote() for _ in range(2)]
    manager = Manager(workers)
    assert ray.get([worker.alive.remote() for worker in workers]) == [True, True]
    manager.check_workers()
    assert ray.get(workers[1].alive.remote()), "a worker that is watched still works"

    buffer = EagerReplayBuffer(
        trainer_mode="sync",
        trainer_config=None,
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs=None,
    )
    buffer.check_workers = manager.check_workers
    monkeypatch.setattr(buffer, "_sync_metadata_from_transfer_queue", lambda: None)  # nothing ever comes
    ray.kill(workers[1])
    began = time.monotonic()
    with pytest.raises(RolloutWorkerDied, match="rollout worker 1 of 2 died"):
        buffer.sample(global_steps=1, partition_id="train", batch_size=4)
    assert time.monotonic() - began < 30


def test_a_worker_stays() -> None:
    async def short() -> None:
        await asyncio.wait_for(ThinkEditWorker.stay(None), 0.05)  # type: ignore[arg-type]

    with pytest.raises(TimeoutError):
        asyncio.run(short())

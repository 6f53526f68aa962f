"""verl's replay buffer with a short poll (`trainer.v1.sampler.custom_sampler`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

POLL_S = 0.05


class EagerReplayBuffer(ReplayBuffer):  # type: ignore[misc]  # verl is untyped
    """Upstream looks for finished groups every two seconds, which is half a step of a tiny model.

    check_workers: called at each look; raises when a worker has died, whose groups would be waited for
        for ever.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(poll_interval=POLL_S, **kwargs)
        self.check_workers: Callable[[], None] = lambda: None

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        self.check_workers()
        waited: float = super()._wait_for_next_poll(partition_id, last_debug_time)
        return waited

"""verl's replay buffer with a short poll (`trainer.v1.sampler.custom_sampler`)."""

from __future__ import annotations

from typing import Any

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

POLL_S = 0.05


class EagerReplayBuffer(ReplayBuffer):  # type: ignore[misc]  # verl is untyped
    """Upstream looks for finished groups every two seconds, which is half a step of a tiny model."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(poll_interval=POLL_S, **kwargs)

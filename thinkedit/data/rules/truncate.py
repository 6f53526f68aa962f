"""A kept trajectory ends with its best edit; of equally good ones the earliest."""

from __future__ import annotations

import msgspec

from thinkedit.data.formats.trajectories import Trajectory, overalls


def best(trajectory: Trajectory) -> int:
    """k: the index of the edit with the highest O, the earliest of equals."""
    scores = overalls(trajectory)
    return scores.index(max(scores))


def truncated(trajectory: Trajectory) -> Trajectory:
    """Edits 0 to k."""
    steps = trajectory.steps[: best(trajectory) + 1]
    return msgspec.structs.replace(trajectory, steps=steps)

"""A score that is missing ends the trajectory before that edit: nothing is imputed."""

from __future__ import annotations

from itertools import takewhile

import msgspec

from thinkedit.data.formats.trajectories import Trajectory


def graded_prefix(trajectory: Trajectory) -> Trajectory | None:
    """The trajectory up to its first edit without a score; None when that is the first one."""
    steps = tuple(takewhile(lambda step: step.score is not None, trajectory.steps))
    if not steps:
        return None
    return (
        trajectory
        if len(steps) == len(trajectory.steps)
        else msgspec.structs.replace(trajectory, steps=steps)
    )

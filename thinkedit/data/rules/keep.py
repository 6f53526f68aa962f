"""Which trajectories are kept: those with a later edit at least as good as the first."""

from __future__ import annotations

from thinkedit.data.formats.trajectories import Trajectory, overalls
from thinkedit.data.rules.fates import Fate


def refused(trajectory: Trajectory, *, keep_immediate_success: bool, good_at: float) -> Fate | None:
    """Why a graded trajectory is dropped; None when it is kept.

    Kept when max over i >= 1 of O_i is at least O_0, ties included. A single edit has no later one
    and is dropped, unless `keep_immediate_success`, the expert stopped there, and both of its
    scores reach `good_at`.
    """
    first, *later = overalls(trajectory)
    if later:
        return None if max(later) >= first else Fate.NOT_IMPROVED
    (step,) = trajectory.steps
    satisfied = step.expert is not None and step.expert.stop
    good = step.score is not None and step.score.lowest >= good_at
    return None if keep_immediate_success and satisfied and good else Fate.SINGLE_EDIT

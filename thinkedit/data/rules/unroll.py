"""Trajectories become samples: refinements, stops, and the states that RL starts from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from thinkedit.data.formats.trajectories import Step, Trajectory


class Sample(NamedTuple):
    """What is learned from one edit. edit: its index; answer: the reply's; None where nobody gave one.

    A "stop" answers with the prompt of the edit itself, a "refine" with that of the next edit.
    """

    kind: Literal["refine", "stop"]
    edit: int
    step: Step
    answer: str


def unrolled(trajectory: Trajectory) -> Iterator[Sample]:
    """A truncated trajectory's samples: refine for edits 0 to k-1, stop for edit k.

    Whether the stop is honest (the expert did accept edit k) and the rest sensible is `sanity`'s affair.
    """
    *before, last = trajectory.steps
    for edit, (step, following) in enumerate(zip(before, trajectory.steps[1:], strict=True)):
        yield Sample("refine", edit, step, following.prompt)
    yield Sample("stop", len(before), last, last.prompt)

"""What goes to replicas and comes back: plain data, so that it crosses processes whatever failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thinkedit.envs.world import Item, Scene, render
from thinkedit.errors import EditorError, ServiceError, ServiceTimeout
from thinkedit.types import RGB, Outcome

# The real tiny edit that shows a replica's health. Any editor takes a picture of the world, and one
# of them takes no other.
PROBE = render(Scene((Item(0, "big", "red", "circle"), Item(4, "small", "blue", "star"))))
PROBE_PROMPT = "paint the red circle green, keep everything else unchanged"


@dataclass(frozen=True, slots=True)
class EditorSpec:
    """What a replica is made of.

    concurrency: edits at a time in one replica. timeout_s: after which nobody waits for an edit.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 1
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """An edit. seconds: of the editor alone."""

    picture: RGB
    seconds: float


class EditorBroke(EditorError):
    """The editor raised what it should not have."""


class EditorBusy(EditorError):
    """All replicas are at work and the queue is full."""


class ReplicasLost(EditorError):
    """The replicas that made this edit died, one after the other."""


def crossing(error: Exception) -> ServiceError:
    """The error as it goes to whoever asked for the edit, of a class that every process has.

    An editor's own message is for whoever asked. What else it raised may hold anything, such as
    another's prompt or a key, so only its class is told.
    """
    if not isinstance(error, ServiceError):
        return EditorBroke(f"the editor broke down ({type(error).__name__}); its log tells more")
    return (ServiceTimeout if error.outcome is Outcome.TIMEOUT else EditorError)(str(error))

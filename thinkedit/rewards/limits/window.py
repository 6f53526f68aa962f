"""A sliding window whose calls queue: each is told the moment when it may go."""

from __future__ import annotations

from collections import deque

WINDOW_S = 61.0  # a minute, and a second for calls that take longer or shorter on their way


class Window:
    """Lets through at most `limit` in any `WINDOW_S` seconds, evenly spaced.

    So none of a server's own minutes sees more than the limit, and there are no bursts, which
    servers refuse that count by the second. What was not used is not saved up.

    Moments are seconds of one monotonic clock. They are handed out in order: whoever asks later
    never goes earlier.

    Args:
        limit: calls or tokens a minute, at least 1.
        now: the present moment. What a process before this one may have let through just now
            counts as one second's share.
    """

    def __init__(self, limit: int, now: float) -> None:
        self._limit = limit
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._free_at = now
        self.take(max(1, limit // 60), now)

    def moment(self, cost: int, now: float) -> float:
        """When a call of this cost, at most `limit`, may go at the earliest; takes nothing."""
        at = max(now, self._free_at)
        while self._taken and self._taken[0][0] <= at - WINDOW_S:
            self._sum -= self._taken.popleft()[1]
        excess = self._sum + cost - self._limit
        for then, taken in self._taken:  # spacing alone does not do where costs differ
            if excess <= 0:
                break
            at = max(at, then + WINDOW_S)
            excess -= taken
        return at

    def take(self, cost: int, at: float) -> None:
        """Let a call through at `at`, which `moment` allowed, or later."""
        self._taken.append((at, cost))
        self._sum += cost
        self._free_at = at + cost * WINDOW_S / self._limit

    def owe(self, cost: int, now: float) -> None:
        """Count what a call turned out to cost beyond what was taken; later calls wait for it."""
        self.take(cost, max(now, self._free_at))

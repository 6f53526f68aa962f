"""Which replica gets the next edit."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from ray.serve.request_router import FIFOMixin, RequestRouter

_LOOK_S = 0.005  # between two looks at what this process knows
_LOOKS = 20  # before the replicas themselves are asked: other processes send them edits too


class LeastBusyRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]  # ray is untyped
    """The least busy replica, as soon as one has room.

    Serve's own choice looks at two random replicas and sleeps up to half a second when both are at
    work, even while a third one idles: fine for short requests, but edits take seconds of a GPU.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock = itertools.count()
        self._chosen: dict[Any, int] = {}  # by replica, when; so that two choices at a time differ

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        """Ranks of replicas; Serve takes the least busy of the first rank that has room."""
        for _ in range(_LOOKS):
            best = min(candidate_replicas, key=self._busy, default=None)
            if best is not None and self._busy(best)[0] < best.max_ongoing_requests:
                self._chosen[best.replica_id] = next(self._clock)
                return [[best]]
            await asyncio.sleep(_LOOK_S)
        return [candidate_replicas]

    def _busy(self, replica: Any) -> tuple[int, int]:
        """Edits it is known to have, and when it was chosen; one that nothing is known of may be idle."""
        known = self.replica_queue_len_cache.get(replica.replica_id)
        return known or 0, self._chosen.get(replica.replica_id, -1)

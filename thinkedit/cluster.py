"""Starting Ray."""

from __future__ import annotations

import logging
from typing import Any

from thinkedit.errors import ThinkEditError

log = logging.getLogger(__name__)

TRIES = 2


class ClusterFailed(ThinkEditError):
    """Ray could not be started; the message ends with its reason."""


def start_ray(**settings: Any) -> None:
    """`ray.init`, tried once more where a new node does not answer within Ray's own 30 seconds.

    That happens when clusters start at once on a machine with few cores, and hardly twice in a row.

    Raises:
        ClusterFailed: it did not answer the second time either.
    """
    import ray  # here, so that whoever doesn't start it needn't have it

    for attempt in range(1, TRIES + 1):
        try:
            ray.init(**settings)
            return
        except Exception as error:  # Ray raises no narrower one
            if "timed out during startup" not in str(error):
                raise
            if attempt == TRIES:
                raise ClusterFailed(
                    f"Ray did not start in {TRIES} tries. Is this machine out of memory, or busy with other "
                    f"clusters? Its logs are in session_latest/logs of Ray's temporary folder: {error}"
                ) from error
            log.warning("Ray did not answer within its time: starting it once more")
            ray.shutdown()

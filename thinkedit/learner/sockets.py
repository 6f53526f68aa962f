"""A weight-transfer socket that two runs on one host cannot share."""

from __future__ import annotations

import os

RUN_KEY = "THINKEDIT_RUN_KEY"


def own_socket(handle: str) -> str:
    """verl's socket address with this run's key in it.

    verl keys the address by Ray's job id, which is the same in every freshly started cluster.
    """
    key = os.environ.get(RUN_KEY, "")
    return handle.replace("rl-colocate-zmq-", f"rl-colocate-zmq-{key}-") if key else handle

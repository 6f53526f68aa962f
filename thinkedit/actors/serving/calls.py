"""Calls to the replicas of an editor, from any process of their Ray cluster."""

from __future__ import annotations

import asyncio

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from thinkedit.actors.serving.work import EditorBusy, Made, ReplicasLost
from thinkedit.errors import ServiceError
from thinkedit.types import RGB

DEPLOYMENT = "editor"
_TRIES = 2  # a picture on which replicas die must not fell them all


class ServeCalls:
    """Calls through a handle of Ray Serve.

    Cancelling a call takes it out of the queue, or cancels it in the replica. When a replica dies
    under a call, another one gets it once more.

    Args:
        application: the name it is deployed under.

    Raises:
        RayServeException: Serve does not run in this cluster.
    """

    def __init__(self, application: str) -> None:
        self._application = application
        self._handle = serve.get_deployment_handle(DEPLOYMENT, application)

    async def edit(self, source: RGB, prompt: str, seed: int) -> Made:
        """
        Raises:
            EditorBusy: the queue is full.
            ReplicasLost: replicas died under it.
            EditorError, ServiceTimeout: as the editor says.
        """
        for _ in range(_TRIES):
            response = self._handle.edit.remote(source, prompt, seed)
            try:
                made: Made | ServiceError = await response
            except asyncio.CancelledError:
                response.cancel()
                raise
            except BackPressureError as error:
                raise EditorBusy("all replicas are busy and the queue is full") from error
            except RayActorError:
                continue
            if isinstance(made, ServiceError):
                raise made
            return made
        raise ReplicasLost(f"{_TRIES} replicas died while they made this edit")

    async def replicas(self) -> int:
        """How many are running."""
        status = await asyncio.to_thread(serve.status)
        application = status.applications.get(self._application)
        deployment = application.deployments.get(DEPLOYMENT) if application else None
        return deployment.replica_states.get("RUNNING", 0) if deployment else 0

"""Starts an editor's replicas on Ray Serve, and its front; stops them when told to, work under way first.

The front is a process of ours and not Serve's proxy, which reads any body into memory before the
application sees its headers.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isfinite

import ray
import uvicorn
from ray import serve
from ray.serve.config import RequestRouterConfig

from thinkedit.actors.serving.address import listen, token_for
from thinkedit.actors.serving.calls import DEPLOYMENT, ServeCalls
from thinkedit.actors.serving.front import MAX_BODY_BYTES, build_front
from thinkedit.actors.serving.replica import Replica
from thinkedit.actors.serving.routing import LeastBusyRouter
from thinkedit.actors.serving.service import EditService
from thinkedit.actors.serving.work import EditorSpec
from thinkedit.cluster import start_ray
from thinkedit.errors import ConfigError, ThinkEditError

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "THINKEDIT_TOKEN"


class ServingFailed(ThinkEditError):
    """The replicas could not be started; the message ends with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One editor, served.

    application: its name in the Ray cluster. host, port: of the front; port 0 picks a free one.
    replicas: at first, and at least. max_replicas: as many as the queue asks for; None: never more.
    gpus, cpus: of one replica; fractions share a device. queue: edits that may wait for a replica.
    token_env: the environment variable that holds the token. address: of the Ray cluster to join;
    None: a new one on this machine.
    """

    editor: EditorSpec
    application: str
    host: str = "127.0.0.1"
    port: int = 8007
    replicas: int = 1
    max_replicas: int | None = None
    gpus: float = 0.0
    cpus: float = 1.0
    queue: int = 100
    token_env: str = TOKEN_VARIABLE
    max_body_bytes: int = MAX_BODY_BYTES
    address: str | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: a value out of range.
        """
        for name, value in {
            "replicas": self.replicas,
            "queue": self.queue,
            "concurrency": self.editor.concurrency,
        }.items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ConfigError(f"max_replicas={self.max_replicas} is less than replicas={self.replicas}")
        for name, share in {"gpus": self.gpus, "cpus": self.cpus}.items():
            if not (isfinite(share) and share >= 0) or (share > 1 and not float(share).is_integer()):
                raise ConfigError(
                    f"{name} must be a share of one, such as 0.5, or a whole number, got {share}"
                )


def run(serving: Serving, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; a second Ctrl-C doesn't wait for edits under way.

    Args:
        on_ready: called with the front's URL when it takes requests.

    Raises:
        ConfigError: an address or a token that won't do, more replicas than the machine has room for.
        ServingFailed: a replica could not make its first edit.
    """
    token = token_for(serving.host, serving.token_env)
    # Ctrl-C and SIGTERM alike: whatever stage it is in, what was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with listen(serving.host, serving.port) as socket, _replicas(serving) as calls:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray put its own there
        editor = serving.editor
        service = EditService(calls, concurrency=editor.concurrency, timeout_s=editor.timeout_s)
        front = build_front(
            service,
            gpus=serving.gpus,
            token=token,
            timeout_s=editor.timeout_s,
            max_body_bytes=serving.max_body_bytes,
        )
        config = uvicorn.Config(front, log_level="warning", access_log=False, server_header=False, ws="none")
        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        on_ready(f"http://{host}:{socket.getsockname()[1]}")
        with suppress(KeyboardInterrupt):  # uvicorn has drained, and raises the signal again
            uvicorn.Server(config).run(sockets=[socket])
        service.close()


@contextmanager
def _replicas(serving: Serving) -> Iterator[ServeCalls]:
    """The replicas, running; taken down on the way out."""
    joins = serving.address is not None
    if not joins:
        # One idle worker process per core is of no use here, and nothing is sent home.
        for name in ("RAY_prestart_worker_first_driver", "RAY_enable_worker_prestart"):
            os.environ.setdefault(name, "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    start_ray(address=serving.address or "local", include_dashboard=False if not joins else None)
    try:
        _check_room(serving, joins)
        serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
        if serving.application in serve.status().applications:
            raise ConfigError(
                f"an application {serving.application!r} is served in this cluster already: "
                "choose another --name"
            )
        try:
            _deploy(serving)
            yield ServeCalls(serving.application)
        finally:
            serve.delete(serving.application)
            if not joins:
                serve.shutdown()
    finally:
        ray.shutdown()


def _deploy(serving: Serving) -> None:
    editor = serving.editor
    scale: dict[str, object] = {"num_replicas": serving.replicas}
    if serving.max_replicas is not None:
        scale = {
            "autoscaling_config": {
                "min_replicas": serving.replicas,
                "max_replicas": serving.max_replicas,
                "target_ongoing_requests": editor.concurrency,
            }
        }
    deployment = serve.deployment(
        Replica,
        name=DEPLOYMENT,
        ray_actor_options={"num_gpus": serving.gpus, "num_cpus": serving.cpus},
        max_ongoing_requests=editor.concurrency,
        max_queued_requests=serving.queue,
        request_router_config=RequestRouterConfig(
            request_router_class=LeastBusyRouter, initial_backoff_s=0.01, max_backoff_s=0.1
        ),
        graceful_shutdown_timeout_s=editor.timeout_s,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=1,
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        **scale,
    )
    try:
        serve.run(deployment.bind(editor), name=serving.application, route_prefix=None)
    except RuntimeError as error:
        raise ServingFailed(f"editor {editor.name!r} can't be served: {error}") from error


def _check_room(serving: Serving, joins: bool) -> None:
    """Replicas that the cluster has no room for would be waited for without end.

    Raises:
        ConfigError: a cluster of this machine alone has no room. One that was joined may grow.
    """
    for kind, share in {"CPU": serving.cpus, "GPU": serving.gpus}.items():
        there = ray.cluster_resources().get(kind, 0.0)
        if share * serving.replicas <= there:
            continue
        what = (
            f"{serving.replicas} replicas with {kind.lower()}s={share:g} need more than the {there:g} {kind}s"
        )
        if not joins:
            raise ConfigError(f"{what} of this machine: give each a smaller share")
        log.warning("%s of the cluster: they wait until it grows", what)

"""What Prometheus reads of the front."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

NAMESPACE = "thinkedit"
# From procedural editors to many steps of a large model.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 2, 4, 8, 15, 30, 60, 120, 300)


class Metrics:
    """One front's figures. Ray exports those of each replica and node besides."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def gauge(name: str, help_: str) -> Gauge:
            return Gauge(name, help_, namespace=NAMESPACE, registry=self._registry)

        def counter(name: str, help_: str, *labels: str) -> Counter:
            return Counter(name, help_, labels, namespace=NAMESPACE, registry=self._registry)

        self.edits = counter("edits", "Edits by outcome; one for all who joined it.", "outcome")
        self.joined = counter("joined", "Requests answered with an equal one's edit.")
        self.seconds = Histogram(
            "edit_seconds",
            "Of the editor, waiting left out.",
            namespace=NAMESPACE,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.waiting = gauge("edits_waiting", "Edits that no replica has begun.")
        self.running = gauge("edits_running", "Edits that replicas are at work on.")
        self.replicas = gauge("replicas", "Replicas that run.")
        self.utilisation = gauge("utilisation", "Edits running, as a share of those that could.")

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self._registry)

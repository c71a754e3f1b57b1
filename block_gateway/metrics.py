"""What the gateway counts, in Prometheus' form."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Counters of one gateway. Only touched from its event loop."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "hutch_gateway_requests", "Requests answered.", ["call", "status"], registry=self._registry
        )
        self.durations = Histogram(
            "hutch_gateway_request_duration_seconds",
            "From a request's head to its answer's end.",
            ["call"],
            registry=self._registry,
        )
        self.chunks = Counter(
            "hutch_gateway_chunks",
            "Chunks stored, sent, or told to be absent.",
            ["outcome"],
            registry=self._registry,
        )
        self.chunk_bytes = Counter(
            "hutch_gateway_chunk_bytes", "Bytes of chunks as stored.", ["direction"], registry=self._registry
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Add a gauge that asks `value` when it is read."""
        Gauge(f"hutch_gateway_{name}", what, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All of it, as `/metrics` shows it."""
        return generate_latest(self._registry)

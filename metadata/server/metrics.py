"""What the metadata server counts, for Prometheus. Labels have few values: never an id, never a name."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """One server's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "hutch_metadata_requests", "Requests answered", ["call", "status"], registry=self._registry
        )
        self.duration_s = Histogram(
            "hutch_metadata_request_seconds", "Time to answer a request", ["call"], registry=self._registry
        )
        self.wrong_passwords = Counter(
            "hutch_metadata_wrong_passwords", "Links refused for their password", registry=self._registry
        )
        self.repairs = Counter(
            "hutch_metadata_broker_repairs",
            "Devices and queues that the broker had wrong, found by comparing",
            registry=self._registry,
        )
        self.broker_follows = Gauge(
            "hutch_metadata_broker_follows",
            "1 when the broker was last seen to follow the desired state",
            registry=self._registry,
        )
        self.swept = Counter(
            "hutch_metadata_swept",
            "Rows dropped because their time was over",
            ["kind"],
            registry=self._registry,
        )

    def render(self) -> bytes:
        """The numbers in Prometheus' text form."""
        return generate_latest(self._registry)

"""What a worker counts, for Prometheus. Labels have few values: never an id, never a name."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from broker.messages import Conflict
from metadata.state import Accepted, Dead, Outcome, Refused, Replayed

_OUTCOMES = {Accepted: "accepted", Refused: "refused", Replayed: "replayed", Dead: "dead"}


class Metrics:
    """One worker's numbers, in a registry of their own. Only touched from its event loop."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.commits = Counter(
            "hutch_workers_commits", "Requests by what became of them", ["outcome"], registry=self._registry
        )
        self.conflicts = Counter(
            "hutch_workers_conflicts", "Conflicts of refused requests", ["code"], registry=self._registry
        )
        self.dead_letters = Counter(
            "hutch_workers_dead_letters", "Deliveries dead-lettered", ["reason"], registry=self._registry
        )
        self.batch_size = Histogram(
            "hutch_workers_batch_requests",
            "Requests decided in one transaction",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self._registry,
        )
        self.transaction_s = Histogram(
            "hutch_workers_transaction_seconds", "From locking to durable", registry=self._registry
        )
        self.batch_s = Histogram(
            "hutch_workers_batch_seconds",
            "From taking a batch to acknowledging it, holding included",
            registry=self._registry,
        )
        self.held = Gauge(
            "hutch_workers_held", "Deliveries held until a server is back", registry=self._registry
        )

    def count_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Count a batch that is durable."""
        self.batch_size.observe(len(outcomes))
        for outcome in outcomes:
            self.commits.labels(_OUTCOMES[type(outcome)]).inc()
            if isinstance(outcome, Refused):
                self._count_conflicts(outcome.refusal.conflicts)

    def _count_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        for conflict in conflicts:
            self.conflicts.labels(conflict.code.value).inc()

    def render(self) -> bytes:
        """The numbers in Prometheus' text form."""
        return generate_latest(self._registry)

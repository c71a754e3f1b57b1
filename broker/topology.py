"""What stands in the broker, declared once. `rabbitmq/definitions.json` is this page, written for operators.

| object | kind | who publishes | who consumes |
|---|---|---|---|
| `hutch.requests` | direct exchange, one binding to one queue | devices, metadata server | |
| `hutch.requests` | quorum queue, bounded, reject-publish, delivery limit | | sync workers |
| `hutch.changes` | direct exchange, key = workspace id | sync workers | |
| `hutch.dead` | direct exchange and quorum queue | the broker (dead letters), workers | operators |
| `device.<random>` | classic durable queue, bounded, expires | via `hutch.changes`; workers and metadata server, by name | its device, alone |
"""

import json
import sys
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

VHOST: Final = "hutch"
REQUESTS: Final = "hutch.requests"
CHANGES: Final = "hutch.changes"
DEAD: Final = "hutch.dead"

DELIVERY_LIMIT: Final = 8
"""A request's redeliveries before the broker dead-letters it. The worker answers `poisoned` at the last one."""

MAX_REQUESTS_SIZE_BYTES: Final = 1024**3
MAX_REQUESTS: Final = 200_000
DEVICE_QUEUE_SIZE_BYTES: Final = 8 * 1024**2
DEVICE_QUEUE_EXPIRY_MS: Final = 14 * 24 * 3600 * 1000
DEVICE_MAX_CONNECTIONS: Final = 3
DEVICE_MAX_CHANNELS: Final = 6

Argument = str | int


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: str = "direct"


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A durable queue. `arguments` are AMQP's `x-…` ones, `x-queue-type` among them."""

    name: str
    arguments: dict[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Binding:
    """From an exchange to a queue."""

    exchange: str
    queue: str
    routing_key: str


EXCHANGES: Final = (Exchange(name=REQUESTS), Exchange(name=CHANGES), Exchange(name=DEAD))

QUEUES: Final = (
    Queue(
        name=REQUESTS,
        arguments={
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-max-length": MAX_REQUESTS,
            "x-max-length-bytes": MAX_REQUESTS_SIZE_BYTES,
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": DEAD,
            "x-dead-letter-routing-key": DEAD,
            "x-dead-letter-strategy": "at-least-once",
        },
    ),
    Queue(
        name=DEAD,
        arguments={"x-queue-type": "quorum", "x-max-length-bytes": MAX_REQUESTS_SIZE_BYTES},
    ),
)

BINDINGS: Final = (
    Binding(exchange=REQUESTS, queue=REQUESTS, routing_key=REQUESTS),
    Binding(exchange=DEAD, queue=DEAD, routing_key=DEAD),
)


def device_queue(name: str) -> Queue:
    """A device's response queue. `name` is `device.` and 32 random hex digits: whoever knows a name can count it."""
    return Queue(
        name=name,
        arguments={
            "x-queue-type": "classic",
            "x-overflow": "drop-head",
            "x-max-length-bytes": DEVICE_QUEUE_SIZE_BYTES,
            "x-expires": DEVICE_QUEUE_EXPIRY_MS,
        },
    )


def device_binding(queue: str, workspace_id: UUID) -> Binding:
    """What brings a workspace's change notices to a device's queue."""
    return Binding(exchange=CHANGES, queue=queue, routing_key=str(workspace_id))


def device_user(device_id: UUID) -> str:
    """The broker's name for a device: what `user_id` says on its messages."""
    return str(device_id)


def device_permissions(queue: str) -> dict[str, str]:
    """A device configures nothing, writes to the requests exchange, and reads its own queue."""
    return {"configure": "^$", "write": r"^hutch\.requests$", "read": "^" + queue.replace(".", r"\.") + "$"}


WORKER_PERMISSIONS: Final = {
    "configure": "^$",
    "write": r"^(hutch\.changes|hutch\.dead|amq\.default)$",
    "read": r"^hutch\.requests$",
}
"""A worker configures nothing, tells devices and the dead letters, and reads requests. The broker's rights call the
default exchange `amq.default`."""


def definitions() -> dict[str, Any]:
    """All of this in RabbitMQ's own form, for its `rabbitmqctl import_definitions`. Holds no user and no secret.

    `python -m broker.topology > rabbitmq/definitions.json` writes it.
    """
    return {
        "vhosts": [{"name": VHOST}],
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": VHOST,
                "type": exchange.kind,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for exchange in EXCHANGES
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": VHOST,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(queue.arguments),
            }
            for queue in QUEUES
        ],
        "bindings": [
            {
                "source": binding.exchange,
                "vhost": VHOST,
                "destination": binding.queue,
                "destination_type": "queue",
                "routing_key": binding.routing_key,
                "arguments": {},
            }
            for binding in BINDINGS
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(definitions(), indent=2) + "\n")

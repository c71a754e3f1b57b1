"""What comes out of a queue, and the two seams that the real broker and its in-memory twin share."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from broker import topology

REASON_HEADER: Final = "x-hutch-reason"
DETAIL_HEADER: Final = "x-hutch-detail"
ORIGIN_HEADER: Final = "x-hutch-user"

MAX_DETAIL_LENGTH: Final = 500

Headers = dict[str, str | int]
OnDelivery = Callable[["Delivery"], Awaitable[None] | None]
OnConnected = Callable[[], Awaitable[None]]


class Settle(Protocol):
    """How a delivery is given back to the queue that it came from."""

    async def __call__(self, *, taken: bool, requeue: bool) -> None:
        """Acknowledge (`taken`), or reject. Does nothing once the channel is gone."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message in hand. Settle it once, by `ack` or `reject`; what is never settled comes again.

    Attributes:
        body: The bytes as they were published; nothing has been decoded.
        user_id: Whom the broker verified as the publisher; None when the publisher did not say.
        delivery_count: How often it was delivered before (quorum queues count; classic ones always say 0).
        redelivered: It may have been worked on before. A hint, never proof.
        headers: As the publisher wrote them, and so to be doubted; `x-death` too.
    """

    body: bytes
    user_id: str | None = None
    delivery_count: int = 0
    redelivered: bool = False
    message_id: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    settle: Settle = field(repr=False, compare=False)

    async def ack(self) -> None:
        """Say that it was taken. Quietly nothing when the channel is gone: then it will come again."""
        await self.settle(taken=True, requeue=False)

    async def reject(self, requeue: bool = False) -> None:
        """Give it back: to the queue with `requeue`, else to the queue's dead letters (if it has them)."""
        await self.settle(taken=False, requeue=requeue)


class Publishing(Protocol):
    """Publishes to a broker: `broker.connection.Publisher`, or its twin of `broker.memory`."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        timeout_s: float = 30,
        headers: Headers | None = None,
    ) -> None:
        """See `broker.connection.Publisher.publish`."""


class Consuming(Protocol):
    """Consumes one queue: `broker.connection.Consumer`, or its twin of `broker.memory`."""

    @property
    def connected(self) -> bool:
        """Whether deliveries can arrive just now."""

    async def run(self, on_delivery: OnDelivery, *, on_connected: OnConnected | None = None) -> None:
        """See `broker.connection.Consumer.run`."""


async def dead_letter(publisher: Publishing, delivery: Delivery, reason: str, detail: str = "") -> None:
    """Keep a message that nobody can handle, with the reason, and take it off its queue.

    It is published to `hutch.dead` first and acknowledged only after that is confirmed: a crash between the two
    keeps it twice, and never loses it.

    Args:
        publisher: Any publisher of the service.
        delivery: The message in hand. It is settled when this returns.
        reason: A stable code, such as `corrupt`.
        detail: For an operator to read; cut to a sensible length. Names no secret and no file.

    Raises:
        Retryable: The broker did not take it; the delivery is still in hand.
    """
    headers: Headers = {REASON_HEADER: reason, DETAIL_HEADER: detail[:MAX_DETAIL_LENGTH]}
    if delivery.user_id is not None:
        headers[ORIGIN_HEADER] = delivery.user_id
    await publisher.publish(topology.DEAD, topology.DEAD, delivery.body, headers=headers)
    await delivery.ack()

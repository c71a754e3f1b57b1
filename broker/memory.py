"""The broker's in-memory twin: the same promises as RabbitMQ's, kept by one object, for tests and simulations.

Deterministic: it reads no clock and draws no numbers, so the order of events is the event loop's alone. One suite
(`tests/contract/test_broker.py`) holds it and the real broker to the same behaviour. It knows no `x-expires`: call
`delete_queue` when a queue shall have expired.
"""

import asyncio
import re
from dataclasses import replace
from inspect import isawaitable
from typing import Final, Self

from broker import topology
from broker.delivery import Delivery, Headers, OnConnected, OnDelivery
from broker.errors import Blocked, Forbidden, NotFound, Refused, Unavailable
from broker.memory_queue import MemoryQueue, Stored, Subscription
from broker.messages import MAX_MESSAGE_SIZE_BYTES
from broker.topology import Binding, Exchange, Queue

ADMINISTRATOR: Final = "administrator"
EVERYTHING: Final = {"configure": ".*", "write": ".*", "read": ".*"}


class MemoryBroker:
    """All of a broker's state. Users beside the administrator exist once they were put."""

    def __init__(self) -> None:
        self._exchanges: set[str] = set()
        self._queues: dict[str, MemoryQueue] = {}
        self._bindings: set[Binding] = set()
        self._users: dict[str, dict[str, str]] = {ADMINISTRATOR: EVERYTHING}
        self._places = 0
        self._alarm = False
        self._up = asyncio.Event()
        self._up.set()

    # --- what stands

    def ensure_topology(self) -> None:
        """Declare all that `broker.topology` names."""
        for exchange in topology.EXCHANGES:
            self.ensure_exchange(exchange)
        for queue in topology.QUEUES:
            self.ensure_queue(queue)
        for binding in topology.BINDINGS:
            self.bind(binding)

    def ensure_exchange(self, exchange: Exchange) -> None:
        """Declare a direct exchange."""
        self._exchanges.add(exchange.name)

    def ensure_queue(self, queue: Queue) -> None:
        """Declare a queue. Raises `Refused` (`inequivalent`) when it stands with other arguments."""
        standing = self._queues.setdefault(queue.name, MemoryQueue(queue))
        if standing.declared != queue:
            raise Refused("it stands already, and is another", code="inequivalent")

    def delete_queue(self, name: str) -> None:
        """Delete a queue and what is in it; its consumers raise `NotFound`."""
        queue = self._queues.pop(name, None)
        self._bindings = {binding for binding in self._bindings if binding.queue != name}
        for subscription in queue.consumers if queue else ():
            subscription.end()

    def bind(self, binding: Binding) -> None:
        """Bind a queue to an exchange. Raises `NotFound` when either is not there."""
        if binding.exchange not in self._exchanges or binding.queue not in self._queues:
            raise NotFound("no such exchange or queue")
        self._bindings.add(binding)

    def unbind(self, binding: Binding) -> None:
        """Take a binding away. One that is not there is fine."""
        self._bindings.discard(binding)

    def put_user(self, name: str, permissions: dict[str, str]) -> None:
        """Make a user, with the regular expressions of what it may `configure`, `write` and `read`."""
        self._users[name] = permissions

    def delete_user(self, name: str) -> None:
        """Delete a user and end its consumers: they raise `Forbidden`."""
        self._users.pop(name, None)
        self.close_connections(name)

    def close_connections(self, user: str) -> None:
        """End a user's consumers as a lost connection does: what they had in hand goes back."""
        for name, queue in self._queues.items():
            for subscription in [s for s in queue.consumers if s.user == user]:
                self.unsubscribe(name, subscription)

    def messages(self, queue: str) -> list[Stored]:
        """What waits in a queue, and is in nobody's hand."""
        return list(self._queues[queue].ready)

    # --- what befalls it

    def set_alarm(self, on: bool) -> None:
        """With an alarm on, publishers are blocked; consumers go on."""
        self._alarm = on

    def stop(self) -> None:
        """Go down: publishing is `Unavailable`, consumers wait. What was confirmed stays."""
        self._up.clear()
        for name, queue in self._queues.items():
            for subscription in list(queue.consumers):
                self.unsubscribe(name, subscription)

    def start(self) -> None:
        """Come up again."""
        self._up.set()

    # --- who uses it

    def publisher(self, *, user: str = ADMINISTRATOR, user_id: str | None = None) -> "MemoryPublisher":
        """A publisher that has connected as `user`, and says that it is `user_id`."""
        return MemoryPublisher(self, user, user_id)

    def consumer(
        self, queue: str, *, prefetch: int, exclusive: bool = False, user: str = ADMINISTRATOR
    ) -> "MemoryConsumer":
        """A consumer that connects as `user`."""
        return MemoryConsumer(self, queue, prefetch, exclusive, user)

    def check_right(self, user: str, right: str, name: str) -> None:
        """Raises `Forbidden` unless the user exists, and may `write` or `read` what has this name."""
        if user not in self._users:
            raise Forbidden("the broker refused the credentials: link the device again")
        if re.search(self._users[user].get(right, "^$"), name) is None:
            raise Forbidden("the broker refused access")

    # --- how it works

    def accept(self, user: str, exchange: str, routing_key: str, message: Stored) -> None:
        """Take one message, as `Publisher.publish` says. The caller leaves `place` to this."""
        if not self._up.is_set():
            raise Unavailable("the broker cannot be reached")
        self.check_right(user, "write", exchange or "amq.default")
        if self._alarm:
            raise Blocked("the broker is short of memory or disk, and takes no messages for now")
        if message.user_id is not None and message.user_id != user:
            raise Forbidden("the broker refused access: user_id is another's")
        if exchange and exchange not in self._exchanges:
            raise NotFound("the broker has no such exchange")
        queues = self._route(exchange, routing_key)
        if not queues:
            raise NotFound("no queue takes this message: is the exchange bound?", code="no_route")
        # As in the real broker, a full queue refuses although the others of a fan-out have taken the message.
        taken = [self._enqueue(queue, message) for queue in queues]
        if not all(taken):
            raise Blocked("the broker refused the message: its queue is full")

    def _route(self, exchange: str, routing_key: str) -> list[MemoryQueue]:
        if not exchange:
            return [self._queues[routing_key]] if routing_key in self._queues else []
        names = {b.queue for b in self._bindings if (b.exchange, b.routing_key) == (exchange, routing_key)}
        return [self._queues[name] for name in sorted(names)]

    def _enqueue(self, queue: MemoryQueue, message: Stored) -> bool:
        if queue.declared.arguments.get("x-overflow") == "reject-publish" and queue.is_over(extra=1):
            return False
        self._places += 1
        queue.ready.append(replace(message, place=self._places))
        queue.pump()
        while queue.ready and queue.is_over(extra=0):
            self._dead_letter(queue, queue.ready.pop(0), "maxlen")
        return True

    def _dead_letter(self, queue: MemoryQueue, message: Stored, reason: str) -> None:
        exchange = queue.declared.arguments.get("x-dead-letter-exchange")
        if not isinstance(exchange, str):
            return
        key = str(queue.declared.arguments.get("x-dead-letter-routing-key", queue.declared.name))
        death = {"reason": reason, "queue": queue.declared.name, "count": 1}
        headers = dict(message.headers)
        earlier = headers.get("x-death")
        headers["x-death"] = [death, *(earlier if isinstance(earlier, list) else [])]
        headers.setdefault("x-first-death-reason", reason)
        headers.setdefault("x-first-death-queue", queue.declared.name)
        for target in self._route(exchange, key):
            self._enqueue(target, replace(message, headers=headers, delivery_count=0, redelivered=False))

    def subscribe(self, name: str, prefetch: int, exclusive: bool, user: str) -> Subscription:
        """Begin to consume, or raise why not."""
        if user not in self._users:
            raise Forbidden("the broker refused the credentials: link the device again")
        queue = self._queues.get(name)
        self.check_right(user, "read", name)
        if queue is None:
            raise NotFound("the broker has no such queue")
        if queue.consumers and (exclusive or any(s.exclusive for s in queue.consumers)):
            raise Refused("another consumer holds this queue", code="in_use")
        subscription = Subscription(prefetch, exclusive, user, asyncio.Queue(prefetch + 1))
        queue.consumers.append(subscription)
        queue.pump()
        return subscription

    def unsubscribe(self, name: str, subscription: Subscription) -> None:
        """End consuming: what was in hand goes back to its place."""
        queue = self._queues.get(name)
        if queue is None or subscription not in queue.consumers:
            return
        queue.consumers.remove(subscription)
        subscription.end()
        for message in list(subscription.in_hand.values()):
            self._return(queue, message)
        subscription.in_hand.clear()
        queue.pump()

    def settle(
        self, name: str, subscription: Subscription, place: int, *, taken: bool, requeue: bool
    ) -> None:
        """Settle what is in hand; nothing when it no longer is."""
        message = subscription.in_hand.pop(place, None)
        queue = self._queues.get(name)
        if message is None or queue is None:
            return
        if not taken and requeue:
            self._return(queue, message)
        elif not taken:
            self._dead_letter(queue, message, "rejected")
        queue.pump()

    def _return(self, queue: MemoryQueue, message: Stored) -> None:
        poisoned = queue.give_back(message)
        if poisoned is not None:
            self._dead_letter(queue, poisoned, "delivery_limit")

    async def wait_up(self) -> None:
        """Return once it is up. Without a time-out: a consumer waits as long as it takes."""
        await self._up.wait()


class MemoryPublisher:
    """`broker.connection.Publisher` to a `MemoryBroker`. Time-outs do not pass: without a broker it fails at once."""

    def __init__(self, broker: MemoryBroker, user: str, user_id: str | None) -> None:
        self._broker = broker
        self._user = user
        self._user_id = user_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

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
        if len(body) > MAX_MESSAGE_SIZE_BYTES:
            raise Refused(
                f"a message may have {MAX_MESSAGE_SIZE_BYTES} bytes, not {len(body)}", code="too_large"
            )
        await asyncio.sleep(0)  # others may run meanwhile, as they may while a confirm is awaited
        message = Stored(place=0, body=body, user_id=self._user_id, headers=dict(headers or {}))
        self._broker.accept(self._user, exchange, routing_key, message)


class MemoryConsumer:
    """`broker.connection.Consumer` of a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, queue: str, prefetch: int, exclusive: bool, user: str) -> None:
        self._broker = broker
        self._queue = queue
        self._prefetch = prefetch
        self._exclusive = exclusive
        self._user = user
        self._subscription: Subscription | None = None

    @property
    def connected(self) -> bool:
        """Whether deliveries can arrive just now."""
        return self._subscription is not None

    async def run(self, on_delivery: OnDelivery, *, on_connected: OnConnected | None = None) -> None:
        """See `broker.connection.Consumer.run`. A queue that is not there is `NotFound` at once."""
        while True:
            await self._broker.wait_up()
            subscription = self._broker.subscribe(self._queue, self._prefetch, self._exclusive, self._user)
            self._subscription = subscription
            try:
                if on_connected is not None:
                    await on_connected()
                await self._hand_over(subscription, on_delivery)
            finally:
                self._subscription = None
                self._broker.unsubscribe(self._queue, subscription)

    async def _hand_over(self, subscription: Subscription, on_delivery: OnDelivery) -> None:
        while (message := await subscription.inbox.get()) is not None:
            result = on_delivery(self._to_delivery(subscription, message))
            if isawaitable(result):
                await result

    def _to_delivery(self, subscription: Subscription, message: Stored) -> Delivery:
        async def settle(*, taken: bool, requeue: bool) -> None:
            await asyncio.sleep(0)
            self._broker.settle(self._queue, subscription, message.place, taken=taken, requeue=requeue)

        headers = dict(message.headers)
        if message.delivery_count:
            headers["x-delivery-count"] = message.delivery_count
        return Delivery(
            body=message.body,
            user_id=message.user_id,
            delivery_count=message.delivery_count,
            redelivered=message.redelivered,
            message_id=None,
            headers=headers,
            settle=settle,
        )

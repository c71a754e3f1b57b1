"""The two brokers that the suite runs on, behind one small interface for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol
from uuid import uuid4

from broker.connection import BrokerAddress, Consumer, Consuming, Delivery, Publisher, Publishing
from broker.management import Management, hash_password
from broker.memory import EVERYTHING, MemoryBroker
from broker.topology import Binding, Exchange, Queue

PATIENCE_S = 120.0
PASSWORD = "a password of a test"


class Broker(Protocol):
    """What a test may do to a broker."""

    async def put(self, *things: Exchange | Queue | Binding) -> None: ...

    async def delete_queue(self, name: str) -> None: ...

    async def put_user(self, permissions: dict[str, str] = EVERYTHING) -> str: ...

    async def delete_user(self, name: str) -> None: ...

    async def close_connections(self, name: str) -> None: ...

    def publisher(self, user: str, *, user_id: str | None = None) -> Publishing: ...

    def consumer(
        self, user: str, queue: str, *, prefetch: int = 10, exclusive: bool = False
    ) -> Consuming: ...


class Twin:
    """The in-memory one."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    async def put(self, *things: Exchange | Queue | Binding) -> None:
        for thing in things:
            match thing:
                case Exchange():
                    self.broker.ensure_exchange(thing)
                case Queue():
                    self.broker.ensure_queue(thing)
                case Binding():
                    self.broker.bind(thing)

    async def delete_queue(self, name: str) -> None:
        self.broker.delete_queue(name)

    async def put_user(self, permissions: dict[str, str] = EVERYTHING) -> str:
        name = f"user-{uuid4()}"
        self.broker.put_user(name, permissions)
        return name

    async def delete_user(self, name: str) -> None:
        self.broker.delete_user(name)

    async def close_connections(self, name: str) -> None:
        self.broker.close_connections(name)

    def publisher(self, user: str, *, user_id: str | None = None) -> Publishing:
        return self.broker.publisher(user=user, user_id=user_id)

    def consumer(self, user: str, queue: str, *, prefetch: int = 10, exclusive: bool = False) -> Consuming:
        return self.broker.consumer(queue, prefetch=prefetch, exclusive=exclusive, user=user)


class Real:
    """RabbitMQ, by its management API."""

    def __init__(self, management: Management, amqp_url: str) -> None:
        self.management = management
        self.url = BrokerAddress.parse(amqp_url).url

    async def put(self, *things: Exchange | Queue | Binding) -> None:
        for thing in things:
            match thing:
                case Exchange():
                    await self.management.ensure_exchange(thing)
                case Queue():
                    await self.management.ensure_queue(thing)
                case Binding():
                    await self.management.bind(thing)

    async def delete_queue(self, name: str) -> None:
        await self.management.delete_queue(name)

    async def put_user(self, permissions: dict[str, str] = EVERYTHING) -> str:
        name = f"user-{uuid4()}"
        await self.management.put_user(name, hash_password(PASSWORD))
        await self.management.put_permissions(name, permissions)
        return name

    async def delete_user(self, name: str) -> None:
        await self.management.delete_user(name)

    async def close_connections(self, name: str) -> None:
        await self.management.close_connections(name)

    def address(self, user: str) -> BrokerAddress:
        return BrokerAddress(self.url, user, PASSWORD)

    def publisher(self, user: str, *, user_id: str | None = None) -> Publishing:
        return Publisher(self.address(user), user_id=user_id)

    def consumer(self, user: str, queue: str, *, prefetch: int = 10, exclusive: bool = False) -> Consuming:
        return Consumer(self.address(user), queue, prefetch=prefetch, exclusive=exclusive)


class Inbox:
    """What a consumer was handed, in order; waiting for more has a deadline."""

    def __init__(self) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.connected = asyncio.Event()

    def on_delivery(self, delivery: Delivery) -> None:
        self.deliveries.put_nowait(delivery)

    async def on_connected(self) -> None:
        self.connected.set()

    async def wait_connected(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.connected.wait()
        self.connected.clear()

    async def next(self) -> Delivery:
        async with asyncio.timeout(PATIENCE_S):
            return await self.deliveries.get()

    async def take(self, count: int) -> list[bytes]:
        """Acknowledge so many, and return their bodies."""
        bodies = []
        for _ in range(count):
            delivery = await self.next()
            await delivery.ack()
            bodies.append(delivery.body)
        return bodies


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what becomes true in another task, with a deadline."""
    for _ in range(int(PATIENCE_S * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true in time")


@asynccontextmanager
async def consuming(consumer: Consuming) -> AsyncIterator[Inbox]:
    """Run a consumer while the block lasts. Its deliveries stand in the inbox until the test settles them."""
    inbox = Inbox()
    task = asyncio.create_task(
        consumer.run(inbox.on_delivery, on_connected=inbox.on_connected), name="test consumer"
    )
    try:
        yield inbox
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            raise AssertionError("the consumer has ended") from task.exception()

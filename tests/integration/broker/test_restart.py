"""A broker that dies, and one that is short of memory: what was confirmed stays, and both ends come back."""

from __future__ import annotations

import asyncio
import itertools
import signal
from dataclasses import replace
from uuid import uuid4

import pytest

from broker import topology
from broker.connection import BrokerAddress, Consumer, Delivery, Publisher, check
from broker.errors import Blocked, Misconfigured, Retryable, Unavailable
from broker.management import Management
from tests.contract.brokers import PATIENCE_S, consuming, wait_until
from tests.integration.broker.conftest import MortalBroker

ENOUGH = 300


class Sender:
    """Publishes numbered messages, several at once, each again and again until it is confirmed."""

    def __init__(self, publisher: Publisher, exchange: str, routing_key: str) -> None:
        self._publisher = publisher
        self._where = (exchange, routing_key)
        self._numbers = itertools.count()
        self.confirmed: set[bytes] = set()
        self.failures = 0
        self.done = False

    async def send_until_done(self) -> None:
        while not self.done:
            body = b"%d" % next(self._numbers)
            while body not in self.confirmed:
                await self._try_once(body)

    async def _try_once(self, body: bytes) -> None:
        try:
            await self._publisher.publish(*self._where, body, timeout_s=120)
        except Retryable:
            self.failures += 1
        else:
            self.confirmed.add(body)

    async def wait_for_more(self) -> None:
        goal = len(self.confirmed) + ENOUGH
        await wait_until(lambda: len(self.confirmed) >= goal)


class Collector:
    """Takes all that comes."""

    def __init__(self) -> None:
        self.arrived: set[bytes] = set()

    async def take(self, delivery: Delivery) -> None:
        self.arrived.add(delivery.body)
        await delivery.ack()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_confirmed_messages_survive_and_both_ends_come_back(
    mortal_broker: MortalBroker, how: signal.Signals
):
    queue = topology.device_queue(f"device.{uuid4().hex}")
    binding = topology.device_binding(queue.name, uuid4())
    address = mortal_broker.address
    async with (
        Management(mortal_broker.management_url) as management,
        Publisher(address, user_id=address.user) as publisher,
        asyncio.TaskGroup() as tasks,
    ):
        await management.ensure_topology()
        await management.ensure_queue(queue)
        await management.bind(binding)
        consumer, worker = Consumer(address, topology.REQUESTS, prefetch=50), Collector()
        consuming_task = tasks.create_task(consumer.run(worker.take), name="worker")
        senders = [
            Sender(publisher, topology.REQUESTS, topology.REQUESTS),
            Sender(publisher, topology.CHANGES, binding.routing_key),
        ]
        for sender in senders * 8:
            tasks.create_task(sender.send_until_done(), name="sender")
        for sender in senders:
            await sender.wait_for_more()
        await asyncio.to_thread(mortal_broker.end, how)
        await wait_until(lambda: not consumer.connected)
        await asyncio.to_thread(mortal_broker.start)
        for sender in senders:
            await sender.wait_for_more()
            sender.done = True
        assert all(sender.failures for sender in senders)  # the broker did die amid them
        await wait_until(lambda: worker.arrived >= senders[0].confirmed)
        consuming_task.cancel()
        # Nobody consumed this one so far: it has gone through the broker's death.
        device = Collector()
        reading = Consumer(address, queue.name, prefetch=50, exclusive=True).run(device.take)
        reading_task = tasks.create_task(reading, name="device")
        await wait_until(lambda: device.arrived >= senders[1].confirmed)
        reading_task.cancel()


async def test_an_alarm_blocks_publishers_and_lets_consumers_go_on(mortal_broker: MortalBroker):
    queue = topology.device_queue(f"device.{uuid4().hex}")
    address: BrokerAddress = mortal_broker.address
    async with (
        Management(mortal_broker.management_url) as management,
        Publisher(address, user_id=None) as publisher,
    ):
        await management.ensure_topology()
        await management.ensure_queue(queue)
        for number in range(20):
            await publisher.publish("", queue.name, b"%d" % number)
        await mortal_broker.set_alarm(True)
        try:
            with pytest.raises(Blocked):
                await _publish_until_blocked(publisher, queue.name)
            async with consuming(Consumer(address, queue.name, prefetch=5)) as inbox:
                assert await inbox.take(20) == [b"%d" % number for number in range(20)]
        finally:
            await mortal_broker.set_alarm(False)
        async with asyncio.timeout(PATIENCE_S):
            await _publish_until_taken(publisher, queue.name)


async def _publish_until_blocked(publisher: Publisher, queue: str) -> None:
    # The broker blocks a connection at its first publish under the alarm; that one may still be taken.
    while True:
        await publisher.publish("", queue, b"under the alarm", timeout_s=2)


async def _publish_until_taken(publisher: Publisher, queue: str) -> None:
    while True:
        try:
            return await publisher.publish("", queue, b"after the alarm")
        except Blocked:
            await asyncio.sleep(0.05)  # the broker's word that it is over is on its way


async def test_over_tls_only_the_given_authority_is_trusted(mortal_broker: MortalBroker):
    await check(mortal_broker.tls_address(trusted=True))
    with pytest.raises(Unavailable, match="certificate"):
        await check(mortal_broker.tls_address(trusted=False))
    missing = replace(mortal_broker.tls_address(trusted=True), cafile="/nowhere/ca.pem")
    with pytest.raises(Misconfigured):
        await check(missing)

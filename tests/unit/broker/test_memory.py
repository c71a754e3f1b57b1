"""What only the twin does: it can be stopped, started and alarmed by a word, and always does the same."""

from __future__ import annotations

import asyncio

import pytest

from broker import topology
from broker.delivery import Delivery
from broker.errors import Blocked, NotFound, Refused, Unavailable
from broker.memory import MemoryBroker
from broker.topology import Binding, Queue
from tests.contract.brokers import PATIENCE_S, consuming


def _broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.ensure_topology()
    return broker


async def _request(broker: MemoryBroker, body: bytes) -> None:
    async with broker.publisher() as publisher:
        await publisher.publish(topology.REQUESTS, topology.REQUESTS, body)


async def test_without_a_broker_publishing_fails_and_consumers_wait():
    broker = _broker()
    await _request(broker, b"1")
    consumer = broker.consumer(topology.REQUESTS, prefetch=1)
    async with consuming(consumer) as inbox:
        first = await inbox.next()
        broker.stop()
        with pytest.raises(Unavailable):
            await _request(broker, b"2")
        assert [message.body for message in broker.messages(topology.REQUESTS)] == [b"1"]
        broker.start()
        second = await inbox.next()
        await first.ack()
        await second.ack()
    assert (second.body, second.delivery_count, broker.messages(topology.REQUESTS)) == (b"1", 1, [])


async def test_an_alarm_blocks_publishers_alone():
    broker = _broker()
    await _request(broker, b"1")
    broker.set_alarm(True)
    with pytest.raises(Blocked):
        await _request(broker, b"2")
    async with consuming(broker.consumer(topology.REQUESTS, prefetch=1)) as inbox:
        assert await inbox.take(1) == [b"1"]
        broker.set_alarm(False)
        await _request(broker, b"3")
        assert await inbox.take(1) == [b"3"]


async def _trace() -> list[tuple[str, bytes, int]]:
    broker, seen, all_seen = _broker(), [], asyncio.Event()

    def worker(name: str):
        async def handle(delivery: Delivery) -> None:
            seen.append((name, delivery.body, delivery.delivery_count))
            if len(seen) == 40:
                all_seen.set()
            if delivery.delivery_count == 0 and int(delivery.body) % 3 == 0:
                await delivery.reject(requeue=True)
            else:
                await delivery.ack()

        return broker.consumer(topology.REQUESTS, prefetch=2).run(handle)

    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(worker(name), name=name) for name in "abc"]
        for number in range(30):
            await _request(broker, b"%d" % number)
        async with asyncio.timeout(PATIENCE_S):
            await all_seen.wait()
        for task in workers:
            task.cancel()
    return seen


async def test_the_same_twice():
    assert await _trace() == await _trace()


async def test_what_is_given_back_keeps_its_place():
    broker = _broker()
    for body in (b"1", b"2", b"3"):
        await _request(broker, body)
    async with consuming(broker.consumer(topology.REQUESTS, prefetch=2)) as inbox:
        await inbox.next()
        await inbox.next()
    assert [message.body for message in broker.messages(topology.REQUESTS)] == [b"1", b"2", b"3"]


async def test_a_queue_bounded_by_bytes_drops_its_oldest():
    broker = _broker()
    broker.ensure_queue(Queue(name="small", arguments={"x-queue-type": "classic", "x-max-length-bytes": 10}))
    async with broker.publisher() as publisher:
        for body in (b"aaaa", b"bbbb", b"cccc"):
            await publisher.publish("", "small", body)
    assert [message.body for message in broker.messages("small")] == [b"bbbb", b"cccc"]


async def test_what_stands_is_not_made_another_and_what_is_not_there_is_not_bound():
    broker = _broker()
    with pytest.raises(Refused):
        broker.ensure_queue(Queue(name=topology.REQUESTS))
    with pytest.raises(NotFound):
        broker.bind(Binding(exchange=topology.CHANGES, queue="nowhere", routing_key="k"))
    binding = Binding(exchange=topology.CHANGES, queue=topology.DEAD, routing_key="k")
    broker.bind(binding)
    broker.unbind(binding)
    async with broker.publisher() as publisher:
        with pytest.raises(NotFound):
            await publisher.publish(topology.CHANGES, "k", b"x")

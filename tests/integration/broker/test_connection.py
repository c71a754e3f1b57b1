"""Opening and closing connections to a real broker."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from yarl import URL

from broker import topology
from broker.connection import BrokerAddress, Consumer, Publisher, check
from broker.errors import Forbidden, Unavailable
from broker.management import hash_password
from broker.memory import EVERYTHING
from tests.contract.brokers import PASSWORD, PATIENCE_S, wait_until
from tests.integration.broker.conftest import Cell


async def test_a_broker_that_answers_is_ready(cell: Cell):
    await check(cell.address)


async def test_wrong_credentials_are_refused_everywhere(cell: Cell):
    wrong = replace(cell.address, password="wrong")
    with pytest.raises(Forbidden):
        await check(wrong)
    async with Publisher(wrong, user_id=None) as publisher:
        with pytest.raises(Forbidden):
            await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x")
    with pytest.raises(Forbidden):
        async with asyncio.timeout(PATIENCE_S):
            await Consumer(wrong, topology.REQUESTS, prefetch=1).run(lambda _: None)


async def test_nobody_there_is_unavailable_after_the_time_given(cell: Cell):
    nowhere = BrokerAddress(str(URL(cell.address.url).with_port(1)))
    with pytest.raises(Unavailable):
        await check(nowhere)
    async with Publisher(nowhere, user_id=None) as publisher:
        with pytest.raises(Unavailable):
            await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x", timeout_s=0.5)


async def test_a_publisher_follows_a_broker_that_has_moved(cell: Cell):
    nowhere = replace(cell.address, url=str(URL(cell.address.url).with_port(1)))
    publisher = Publisher(nowhere, user_id=None, on_unreachable=lambda: publisher.move(cell.address))
    async with publisher:
        await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x")


async def test_a_publisher_leaves_the_broker_that_is_no_more_its_own(cell: Cell):
    nowhere = replace(cell.address, url=str(URL(cell.address.url).with_port(1)))
    async with Publisher(cell.address, user_id=None) as publisher:
        await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x")
        publisher.move(cell.address)
        assert publisher.connected
        publisher.move(nowhere)
        with pytest.raises(Unavailable):
            await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x", timeout_s=0.5)
        publisher.move(cell.address)
        await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x")


async def test_a_consumer_follows_a_broker_that_has_moved(cell: Cell):
    nowhere = replace(cell.address, url=str(URL(cell.address.url).with_port(1)))
    consumer = Consumer(nowhere, topology.REQUESTS, prefetch=1)
    connected = asyncio.Event()

    async def on_connected() -> None:
        connected.set()

    def move() -> None:
        consumer.move(cell.address, topology.REQUESTS)

    async with asyncio.TaskGroup() as group:
        running = group.create_task(
            consumer.run(lambda _: None, on_connected=on_connected, on_unreachable=move), name="consumer"
        )
        async with asyncio.timeout(PATIENCE_S):
            await connected.wait()
            connected.clear()
            # The same broker by another name: what is open to the old one is left.
            consumer.move(
                replace(cell.address, url=str(URL(cell.address.url).with_host("localhost"))),
                topology.REQUESTS,
            )
            await connected.wait()
        running.cancel()


async def test_an_idle_publisher_leaves_and_comes_back(cell: Cell):
    async with Publisher(cell.address, user_id=None, idle_close_s=0.05) as publisher:
        for _ in range(2):
            await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x")
            await wait_until(lambda: not publisher.connected)


async def test_a_publisher_outlives_its_connection(cell: Cell):
    await cell.management.put_user("passer-by", hash_password(PASSWORD))
    await cell.management.put_permissions("passer-by", EVERYTHING)
    async with Publisher(
        replace(cell.address, user="passer-by", password=PASSWORD), user_id=None
    ) as publisher:
        await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x")
        await cell.management.close_connections("passer-by")
        await wait_until(lambda: not publisher.connected)
        await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x")
    await cell.management.delete_user("passer-by")


async def test_publishes_are_cancelled_without_harm_to_the_next(cell: Cell):
    async with Publisher(cell.address, user_id=None) as publisher:
        tasks = [
            asyncio.create_task(
                publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x"), name=f"{number}"
            )
            for number in range(50)
        ]
        await asyncio.wait(tasks[:1])
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks)
        await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"next")

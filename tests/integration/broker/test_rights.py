"""What a device can do with its credentials and a raw AMQP client: publish requests, read its queue, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import aio_pika
import aiormq
import pytest
from aiormq.abc import AbstractChannel
from yarl import URL

from broker import topology
from broker.connection import BrokerAddress, Publisher
from broker.errors import Forbidden, Misconfigured
from broker.management import Management, hash_password
from tests.contract.brokers import PASSWORD, PATIENCE_S
from tests.integration.broker.conftest import Cell


@dataclass(frozen=True)
class Device:
    """A linked device, as the metadata server makes it, and its connection of a raw AMQP client."""

    device_id: UUID
    queue: str
    workspace_id: UUID
    address: BrokerAddress
    connection: aio_pika.abc.AbstractConnection

    async def channel(self) -> AbstractChannel:
        opened = await self.connection.channel(on_return_raises=True)
        return await opened.get_underlay_channel()


async def _link(cell: Cell) -> Device:
    device_id, workspace_id = uuid4(), uuid4()
    queue = f"device.{uuid4().hex}"
    name = topology.device_user(device_id)
    limits = {
        "max-connections": topology.DEVICE_MAX_CONNECTIONS,
        "max-channels": topology.DEVICE_MAX_CHANNELS,
    }
    await cell.management.put_user(name, hash_password(PASSWORD), limits)
    await cell.management.put_permissions(name, topology.device_permissions(queue))
    await cell.management.ensure_queue(topology.device_queue(queue))
    await cell.management.bind(topology.device_binding(queue, workspace_id))
    address = BrokerAddress(cell.address.url, name, PASSWORD)
    connection = await aio_pika.connect(str(address.full_url()))
    return Device(device_id, queue, workspace_id, address, connection)


@pytest.fixture
async def device(cell: Cell) -> AsyncIterator[Device]:
    """The device that tries things."""
    linked = await _link(cell)
    yield linked
    await linked.connection.close()


@pytest.fixture
async def victim(cell: Cell) -> AsyncIterator[Device]:
    """Another person's device."""
    linked = await _link(cell)
    yield linked
    await linked.connection.close()


def _properties(user: str | None = None) -> aiormq.spec.Basic.Properties:
    return aiormq.spec.Basic.Properties(delivery_mode=2, user_id=user)


async def _request(channel: AbstractChannel, body: bytes, properties: aiormq.spec.Basic.Properties) -> None:
    await channel.basic_publish(
        body,
        exchange=topology.REQUESTS,
        routing_key=topology.REQUESTS,
        properties=properties,
        mandatory=True,
    )


async def _ignore(_: object) -> None:
    pass


Attempt = Callable[[AbstractChannel, Device, Device], Awaitable[object]]

ATTEMPTS: dict[str, Attempt] = {
    "consume another's queue": lambda c, _, v: c.basic_consume(v.queue, _ignore),
    "get from another's queue": lambda c, _, v: c.basic_get(v.queue),
    "purge another's queue": lambda c, _, v: c.queue_purge(v.queue),
    "delete another's queue": lambda c, _, v: c.queue_delete(v.queue),
    "redeclare another's queue": lambda c, _, v: c.queue_declare(
        v.queue, durable=True, arguments=dict(topology.device_queue(v.queue).arguments)
    ),
    "bind another's queue": lambda c, d, v: c.queue_bind(v.queue, topology.CHANGES, str(d.workspace_id)),
    "unbind another's queue": lambda c, _, v: c.queue_unbind(v.queue, topology.CHANGES, str(v.workspace_id)),
    "consume the request queue": lambda c, _, __: c.basic_consume(topology.REQUESTS, _ignore),
    "get from the request queue": lambda c, _, __: c.basic_get(topology.REQUESTS),
    "get from the dead letters": lambda c, _, __: c.basic_get(topology.DEAD),
    "delete the request queue": lambda c, _, __: c.queue_delete(topology.REQUESTS),
    "delete its own queue": lambda c, d, _: c.queue_delete(d.queue),
    "bind its own queue to another's workspace": lambda c, d, v: c.queue_bind(
        d.queue, topology.CHANGES, str(v.workspace_id)
    ),
    "unbind its own queue": lambda c, d, _: c.queue_unbind(d.queue, topology.CHANGES, str(d.workspace_id)),
    "declare a queue": lambda c, _, __: c.queue_declare("mine"),
    "declare a queue without a name": lambda c, _, __: c.queue_declare(""),
    "declare an exchange": lambda c, _, __: c.exchange_declare("mine"),
    "delete the requests exchange": lambda c, _, __: c.exchange_delete(topology.REQUESTS),
    "bind exchanges to each other": lambda c, _, __: c.exchange_bind(
        topology.REQUESTS, topology.CHANGES, "k"
    ),
    "publish to the changes": lambda c, _, v: c.basic_publish(
        b"x", exchange=topology.CHANGES, routing_key=str(v.workspace_id)
    ),
    "publish to the dead letters": lambda c, _, __: c.basic_publish(
        b"x", exchange=topology.DEAD, routing_key=topology.DEAD
    ),
    "publish straight to another's queue": lambda c, _, v: c.basic_publish(b"x", routing_key=v.queue),
    "publish to a built-in exchange": lambda c, _, __: c.basic_publish(
        b"x", exchange="amq.topic", routing_key="k"
    ),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
async def test_a_device_is_refused(device: Device, victim: Device, attempt: Attempt):
    channel = await device.channel()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await attempt(channel, device, victim)


async def test_a_device_publishes_requests_and_reads_its_queue(cell: Cell, device: Device):
    channel = await device.channel()
    async with asyncio.timeout(PATIENCE_S):
        await _request(channel, b"r", _properties(str(device.device_id)))
        async with Publisher(cell.address, user_id=cell.address.user) as publisher:
            await publisher.publish(topology.CHANGES, str(device.workspace_id), b"news")
        assert (await channel.basic_get(device.queue)).body == b"news"


async def test_a_device_does_not_publish_in_anothers_name(device: Device, victim: Device):
    channel = await device.channel()
    forged = _properties(str(victim.device_id))
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed, match="user_id"):
            await _request(channel, b"x", forged)


async def test_headers_of_a_message_do_not_carry_it_elsewhere(cell: Cell, device: Device, victim: Device):
    channel = await device.channel()
    smuggling = aiormq.spec.Basic.Properties(
        delivery_mode=2,
        headers={"CC": [str(victim.workspace_id), victim.queue], "BCC": [victim.queue]},
        reply_to=victim.queue,
    )
    async with asyncio.timeout(PATIENCE_S):
        await _request(channel, b"smuggled", smuggling)
        async with Publisher(cell.address, user_id=None) as publisher:
            await publisher.publish("", victim.queue, b"later")
        seen = await (await victim.channel()).basic_get(victim.queue)
    assert seen.body == b"later"


async def test_a_device_has_no_more_connections_than_it_may(device: Device):
    others = [
        await aio_pika.connect(str(device.address.full_url()))
        for _ in range(topology.DEVICE_MAX_CONNECTIONS - 1)
    ]
    publisher = Publisher(device.address, user_id=None)
    async with publisher:
        with pytest.raises(Forbidden) as refused:
            await publisher.publish(topology.REQUESTS, topology.REQUESTS, b"x")
    assert refused.value.code == "not_allowed"
    for other in others:
        await other.close()


async def test_a_device_does_not_reach_another_vhost(cell: Cell, device: Device):
    elsewhere = URL(str(device.address.full_url())).with_path("/hutch")
    with pytest.raises(aio_pika.exceptions.CONNECTION_EXCEPTIONS):
        await aio_pika.connect(str(elsewhere))


async def test_a_device_does_not_reach_the_management_api(cell: Cell, device: Device):
    url = URL(cell.management_url).with_user(str(device.device_id)).with_password(PASSWORD)
    async with Management(str(url), cell.vhost) as management:
        with pytest.raises(Misconfigured):
            await management.list_users()


def _watch_close(device: Device) -> asyncio.Event:
    closed = asyncio.Event()
    device.connection.close_callbacks.add(lambda *_: closed.set())
    return closed


async def _passes(event: asyncio.Event) -> None:
    """Give an event a moment to be set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await event.wait()


async def test_a_revoked_device_is_cut_off_with_its_open_connection(cell: Cell, device: Device):
    channel = await device.channel()
    await channel.basic_consume(device.queue, _ignore, exclusive=True)
    closed = _watch_close(device)
    await cell.management.delete_user(topology.device_user(device.device_id))
    async with asyncio.timeout(PATIENCE_S):
        await closed.wait()
    with pytest.raises(aio_pika.exceptions.ProbableAuthenticationError):
        await aio_pika.connect(str(device.address.full_url()))


async def test_the_service_closes_a_connection_without_revoking_the_device(cell: Cell, device: Device):
    closed = _watch_close(device)
    async with asyncio.timeout(PATIENCE_S):
        while not closed.is_set():  # the broker may not have the connection on record yet
            await cell.management.close_connections(topology.device_user(device.device_id))
            await _passes(closed)
    again = await aio_pika.connect(str(device.address.full_url()))  # it is not revoked
    await again.close()


async def test_another_password_ends_the_old_one(cell: Cell, device: Device):
    await cell.management.put_user(topology.device_user(device.device_id), hash_password("another"))
    with pytest.raises(aio_pika.exceptions.ProbableAuthenticationError):
        await aio_pika.connect(str(device.address.full_url()))

"""A linked device whose credentials are stolen, and that is revoked: what a thief can do before, and nothing after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aio_pika
import aiormq
import pytest

from broker import topology
from broker.messages import encode
from tests.bad_input.wire import PATIENCE_S, Wire, a_directory, link
from tests.machines.stack import Device, Service

CALLS = (
    ("POST", "/v1/session"),
    ("GET", "/v1/session"),
    ("GET", "/v1/heads"),
    ("GET", "/v1/devices"),
    ("GET", "/v1/workspaces"),
)


@pytest.fixture
async def victim(service: Service) -> AsyncIterator[Wire]:
    """Another person's device."""
    async with await link(service.told["metadata_url"], service.add_person()) as one:
        yield one


async def test_the_credentials_of_a_linked_device_open_nothing_but_its_own(
    service: Service, email: str, devices: Callable[[str], Device], victim: Wire
):
    device = devices("stolen")
    device.join(service, email)
    async with Wire(device.credential(), service.told["metadata_url"]) as thief:
        for attempt in (
            lambda channel: channel.basic_get(victim.queue),
            lambda channel: channel.basic_consume(victim.queue, _ignore),
            lambda channel: channel.basic_get(topology.REQUESTS),
            lambda channel: channel.queue_declare("mine"),
            lambda channel: channel.queue_delete(thief.queue),
            lambda channel: channel.queue_bind(thief.queue, topology.CHANGES, str(victim.workspace_id)),
            lambda channel: channel.queue_unbind(victim.queue, topology.CHANGES, str(victim.workspace_id)),
            lambda channel: channel.exchange_declare("mine"),
            lambda channel: channel.basic_publish(b"x", exchange=topology.CHANGES, routing_key="x"),
            lambda channel: channel.basic_publish(b"x", routing_key=victim.queue),
        ):
            channel = await thief.channel()
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                async with asyncio.timeout(PATIENCE_S):
                    await attempt(channel)
        with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed, match="user_id"):
            await thief.publish(encode(thief.request(a_directory("forged"))), user_id=str(victim.device_id))
        await thief.commit_good()
    await victim.commit_good()


async def _ignore(_: object) -> None:
    pass


async def test_a_revoked_device_is_cut_off_everywhere(
    service: Service, email: str, devices: Callable[[str], Device]
):
    device = devices("stolen")
    device.join(service, email)
    async with Wire(device.credential(), service.told["metadata_url"]) as thief:
        await thief.commit_good()
        done = await asyncio.to_thread(service.admin, "device", "revoke", thief.device_id)
        assert done.code == 0, done.err
        async with asyncio.timeout(PATIENCE_S):
            await thief.closed.wait()  # the connection that was open
        with pytest.raises(aio_pika.exceptions.ProbableAuthenticationError):
            await aio_pika.connect(thief.amqp_url)
        for method, path in CALLS:
            assert await thief.metadata.code(method, path) == (401, "forbidden")
        assert not await has_queue(service, thief.queue)
        path = f"/v1/workspaces/{thief.workspace_id}/chunks/read"
        assert await thief.gateway.code("POST", path, data=bytes(32)) == (401, "forbidden")
    told = await asyncio.to_thread(device, "sync", "--timeout", "60")
    assert told.code == 12
    assert told.line.startswith("hutch: ")


async def has_queue(service: Service, name: str) -> bool:
    """Whether the broker has a queue of that name."""
    operator = await aio_pika.connect(service.told["amqp_url"])
    async with operator:
        try:
            await (await operator.channel()).get_queue(name)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return True


def test_the_agent_of_a_revoked_device_stops_and_says_so(
    service: Service, email: str, devices: Callable[[str], Device]
):
    lost, kept = devices("lost"), devices("kept")
    for device in (lost, kept):
        device.join(service, email)
    lost.start()
    lost.do("wait", "--timeout", "60")
    (lost.folder / "mine.txt").write_text("This stays where it is.\n")
    lost.do("wait", "--timeout", "60")
    told = kept.do("devices", "--json").data["devices"]
    (device_id,) = [device["device_id"] for device in told if device["name"] == "lost"]
    assert service.admin("device", "revoke", device_id).code == 0
    assert lost.wait_ended() == 12
    (line,) = [line for line in lost.log.read_text().splitlines() if line.startswith("hutch: ")]
    assert "revoked" in line
    assert (lost.folder / "mine.txt").read_text() == "This stays where it is.\n"
    assert lost("unlink").code == 0, "what the line says to do"
    kept.do("sync", "--timeout", "60")
    assert (kept.folder / "mine.txt").exists()
    assert [device["name"] for device in kept.do("devices", "--json").data["devices"]] == ["kept"]

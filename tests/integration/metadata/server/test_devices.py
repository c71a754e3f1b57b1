"""Devices: listed for their user, and cut off everywhere when they are revoked."""

import uuid
from datetime import datetime
from functools import partial

import aio_pika
import aiormq
import pytest

from tests.integration.metadata.server.house import (
    connect,
    consume,
    has_ended,
    sql,
    wait_until,
)


async def test_a_user_sees_the_own_devices(house):
    email = await house.person()
    first, second = await house.link(email, "laptop"), await house.link(email, "desk")
    await house.link(await house.person(), "another's")
    devices = (await house.call("GET", "/v1/devices", first)).json["devices"]
    assert [(each["device_id"], each["name"], each["current"]) for each in devices] == [
        (first.id, "laptop", True),
        (second.id, "desk", False),
    ]
    assert all(datetime.fromisoformat(each["created_at"]).tzinfo for each in devices)


async def test_a_call_is_noted_but_not_each_one(house):
    device = await house.link(await house.person())
    await sql(house, "UPDATE devices SET seen_at = '2001-01-01Z' WHERE device_id = $1", uuid.UUID(device.id))
    [seen] = (await house.call("GET", "/v1/devices", device)).json["devices"]
    [again] = (await house.call("GET", "/v1/devices", device)).json["devices"]
    assert seen["seen_at"] == again["seen_at"] > "2002"


async def test_a_revoked_device_is_cut_off_its_open_connection_included(house):
    email = await house.person()
    device, lost = await house.link(email), await house.link(email)
    connection = await connect(lost)  # a moment old: the broker's statistics do not know of it yet
    await consume(connection, lost.queue)
    answer = await house.call("DELETE", f"/v1/devices/{lost.id}", device)
    assert answer.status == 204
    await wait_until(lambda: has_ended(connection), "the end of the revoked device's connection")
    with pytest.raises(aiormq.exceptions.ProbableAuthenticationError):
        await connect(lost)
    assert (await house.call("GET", "/v1/heads", lost)).status == 401
    assert lost.queue not in await house.queues()
    assert lost.id not in await house.users()
    assert len((await house.call("GET", "/v1/devices", device)).json["devices"]) == 1


async def test_every_one_of_many_young_connections_is_closed(house):
    email = await house.person()
    device = await house.link(email)
    for _ in range(5):
        lost = await house.link(email)
        opened = [await connect(lost) for _ in range(3)]
        assert (await house.call("DELETE", f"/v1/devices/{lost.id}", device)).status == 204
        for connection in opened:
            await wait_until(partial(has_ended, connection), "the end of a connection")


async def test_a_device_unlinks_itself(house):
    device = await house.link(await house.person())
    assert (await house.call("DELETE", f"/v1/devices/{device.id}", device)).status == 204
    assert (await house.call("POST", "/v1/session", device)).status == 401
    assert device.queue not in await house.queues()


async def test_revoking_twice_is_fine(house):
    email = await house.person()
    device, lost = await house.link(email), await house.link(email)
    for _ in range(2):
        assert (await house.call("DELETE", f"/v1/devices/{lost.id}", device)).status == 204


async def test_a_device_has_no_more_connections_than_it_needs(house):
    device = await house.link(await house.person())
    opened = [await connect(device) for _ in range(3)]
    with pytest.raises(aio_pika.exceptions.CONNECTION_EXCEPTIONS):
        await connect(device)
    for connection in opened:
        await connection.close()

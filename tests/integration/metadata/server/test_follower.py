"""The broker follows PostgreSQL: after a crash in between, after a change by another hand, after it was lost."""

import asyncio
import uuid

import aio_pika
import pytest

import metadata.server.follower
from broker import topology
from broker.errors import Unavailable
from broker.management import Management, hash_password
from broker.messages import MembershipChanged, decode_inbox
from metadata.server.follower import Follower
from tests.integration.metadata.server.house import (
    connect,
    consume,
    sql,
    wait_message,
    wait_until,
)


@pytest.fixture
async def management(own_house):
    async with Management(own_house.services.settings.management_url, own_house.vhost) as opened:
        yield opened


async def test_a_broker_that_is_as_it_should_be_is_left_alone(own_house):
    device = await own_house.link(await own_house.person())
    await own_house.workspace(device)
    assert await own_house.services.follower.compare() == 0


async def test_whatever_a_device_lacks_is_mended(own_house, management):
    device = await own_house.link(await own_house.person())
    workspace_id = await own_house.workspace(device)
    user = device.id
    rights = topology.device_permissions(device.queue)
    binding = topology.device_binding(device.queue, workspace_id)
    breaks = {
        "user": lambda: management.delete_user(user),
        "password": lambda: management.put_user(user, hash_password("another")),
        "limits": lambda: management.put_user(user, hash_password("another"), {"max-channels": 99}),
        "permissions": lambda: management.put_permissions(user, rights | {"configure": ".*"}),
        "queue": lambda: management.delete_queue(device.queue),
        "binding": lambda: management.unbind(binding),
    }
    for what, break_it in breaks.items():
        await break_it()
        assert await own_house.services.follower.compare() == 1, what
        assert await own_house.services.follower.compare() == 0, what
        assert (await management.list_permissions())[user] == rights, what
        async with await connect(device) as connection:
            arrived = await consume(connection, device.queue)
            # It is told to compare heads: while it was not as it should be, it may have missed a change.
            assert decode_inbox(await wait_message(arrived)) == MembershipChanged(), what
            await own_house.publish_change(workspace_id, b"news")
            assert await wait_message(arrived) == b"news", what


async def test_what_is_nobodys_is_taken_away(own_house, management):
    device = await own_house.link(await own_house.person())
    orphan, ghost = str(uuid.uuid4()), topology.device_queue("device." + "0" * 32)
    await management.put_user(orphan, hash_password("x"))
    await management.put_permissions(orphan, topology.device_permissions(ghost.name))
    await management.ensure_queue(ghost)
    assert await own_house.services.follower.compare() == 2
    assert orphan not in await own_house.users()
    assert {name for name in await own_house.queues() if name.startswith("device.")} == {device.queue}


async def test_a_device_that_was_revoked_in_postgresql_alone_is_cut_off(own_house):
    device = await own_house.link(await own_house.person())
    await own_house.services.registry.revoke_device(uuid.UUID(device.id))
    assert await own_house.services.follower.compare() == 1
    assert device.id not in await own_house.users()
    assert device.queue not in await own_house.queues()


async def test_what_bears_no_name_of_ours_is_left_alone(own_house, management, rabbitmq_server):
    async def name_of_ours_elsewhere():
        other = rabbitmq_server.create_vhost()
        async with Management(other.management_url, other.name) as there:
            user = str(uuid.uuid4())
            await there.put_user(user, hash_password("x"))
            await there.put_permissions(user, {"configure": "", "write": "", "read": ""})
            return user

    other_service = await name_of_ours_elsewhere()
    person, queue = "operator-" + uuid.uuid4().hex, topology.Queue(name="reports")
    await management.put_user(person, hash_password("x"))
    await management.put_permissions(person, {"configure": ".*", "write": ".*", "read": ".*"})
    await management.ensure_queue(queue)
    assert await own_house.services.follower.compare() == 0
    assert {other_service, person} <= await own_house.users()
    assert "reports" in await own_house.queues()
    for user in (person, other_service):
        await management.delete_user(user)


async def test_who_is_no_member_any_more_hears_no_more(own_house):
    device = await own_house.link(await own_house.person())
    left, kept = await own_house.workspace(device, "left"), await own_house.workspace(device, "kept")
    await sql(own_house, "DELETE FROM workspace_members WHERE workspace_id = $1", left)
    await own_house.publish_change(left, b"what came before it was removed")
    await own_house.services.follower.compare()
    (row,) = await sql(own_house, "SELECT queue_name FROM devices WHERE device_id = $1", uuid.UUID(device.id))
    queue = row["queue_name"]
    assert queue != device.queue
    assert await own_house.keys(queue) == {str(kept)}
    assert device.queue not in await own_house.queues()
    async with await connect(device) as connection:
        with pytest.raises(aio_pika.exceptions.ChannelClosed):
            await consume(connection, device.queue)  # with what still waited there
    async with await connect(device) as connection:
        arrived = await consume(connection, queue)
        assert decode_inbox(await wait_message(arrived)) == MembershipChanged()
        await own_house.publish_change(kept, b"news")
        assert await wait_message(arrived) == b"news"
    assert await own_house.services.follower.compare() == 0


async def test_a_queue_of_an_older_shape_is_made_anew(own_house, management):
    device = await own_house.link(await own_house.person())
    await management.delete_queue(device.queue)
    await management.ensure_queue(topology.Queue(name=device.queue, arguments={"x-queue-type": "classic"}))
    assert (await own_house.call("POST", "/v1/session", device)).status == 200
    await management.ensure_queue(topology.device_queue(device.queue))


async def test_a_broker_that_was_lost_and_came_back_empty_is_built_anew(own_house, rabbitmq_server):
    email = await own_house.person()
    devices = [await own_house.link(email, f"device {number}") for number in range(6)]
    revoked = devices.pop()
    workspace_id = await own_house.workspace(devices[0])
    await own_house.call("DELETE", f"/v1/devices/{revoked.id}", devices[0])

    rabbitmq_server.call("DELETE", f"/api/vhosts/{own_house.vhost}")
    for device in devices:
        rabbitmq_server.call("DELETE", f"/api/users/{device.id}")
    assert await own_house.services.follower.compare() == 5

    assert {topology.REQUESTS, topology.DEAD, *(each.queue for each in devices)} == set(
        await own_house.queues()
    )
    assert revoked.id not in await own_house.users()
    for device in devices:
        async with await connect(device) as connection:
            arrived = await consume(connection, device.queue)
            assert decode_inbox(await wait_message(arrived)) == MembershipChanged()
            await own_house.publish_change(workspace_id, b"news")
            assert await wait_message(arrived) == b"news"


async def test_many_who_follow_one_device_at_once_agree(own_house):
    device = await own_house.link(await own_house.person())
    workspace_id = await own_house.workspace(device)
    follower = own_house.services.follower
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(follower.follow(uuid.UUID(device.id), disconnect=number % 2 == 0))
    assert await own_house.keys(device.queue) == {str(workspace_id)}
    assert await follower.compare() == 0


async def test_a_device_is_followed_by_one_at_a_time(own_house):
    device = await own_house.link(await own_house.person())
    registry, device_id = own_house.services.registry, uuid.UUID(device.id)
    entered = asyncio.Event()

    async def second():
        async with registry.device_state(device_id) as desired:
            entered.set()
            return desired

    async with registry.device_state(device_id) as desired:
        assert not desired.revoked
        waiting = asyncio.create_task(second())
        await registry.revoke_device(device_id)
        # It waits at the lock: seen by PostgreSQL itself.
        await wait_until(lambda: lock_is_awaited(own_house), "the second one at the lock")
        assert not entered.is_set()
    assert (await waiting).revoked  # and reads only then: what the first saw is not what it does


async def lock_is_awaited(house):
    return await sql(house, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
                     "(SELECT oid FROM pg_database WHERE datname = current_database())")  # fmt: skip


async def test_one_process_compares_at_a_time(own_house, management):
    await management.delete_queue(topology.DEAD)
    async with own_house.services.registry.comparison_turn() as mine:
        assert mine
        assert await own_house.services.follower.compare() == 0
        assert topology.DEAD not in await own_house.queues()
    await own_house.services.follower.compare()
    assert topology.DEAD in await own_house.queues()


async def test_the_loop_mends_when_poked_and_outlives_a_broker_that_is_away(own_house, management):
    device = await own_house.link(await own_house.person())
    follower = own_house.services.follower
    loop = asyncio.create_task(follower.run())
    try:
        await wait_until(lambda: follower.healthy, "the first comparison")
        await management.delete_queue(device.queue)
        follower.poke()

        async def mended():
            return device.queue in await own_house.queues()

        await wait_until(mended, "the queue")
    finally:
        loop.cancel()


async def test_a_broker_that_is_away_is_unavailable_and_the_loop_tries_again(own_house, monkeypatch):
    monkeypatch.setattr(metadata.server.follower, "RETRY_EVERY_S", 0.01)
    tries = 0

    class Away(Management):
        async def ensure_topology(self):
            nonlocal tries
            tries += 1
            await super().ensure_topology()

    async with Away("http://nobody:nothing@127.0.0.1:9", own_house.vhost) as away:
        follower = Follower(own_house.services.registry, away)
        with pytest.raises(Unavailable):
            await follower.follow(uuid.uuid4())
        loop = asyncio.create_task(follower.run())
        try:
            await wait_until(lambda: tries >= 3, "a third try")
            assert not follower.healthy
        finally:
            loop.cancel()

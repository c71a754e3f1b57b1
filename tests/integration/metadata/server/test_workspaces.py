"""Workspaces: made once by name, bound for every device of their members, and told of."""

import pytest

from broker.messages import MembershipChanged, decode_inbox
from broker.model import first_chain
from tests.integration.metadata.server.house import connect, consume, sql, wait_message


async def test_a_workspace_is_made_once_by_name_for_each_user(house):
    email = await house.person()
    first, second = await house.link(email), await house.link(email)
    stranger = await house.link(await house.person())
    workspace_id = await house.workspace(first, "home")
    assert await house.workspace(first, "home") == workspace_id
    assert await house.workspace(second, "home") == workspace_id
    assert await house.workspace(first, "Home") != workspace_id
    assert await house.workspace(stranger, "home") != workspace_id


async def test_a_new_workspace_begins_at_its_own_first_chain(house):
    email = await house.person()
    device = await house.link(email)
    made = (await house.call("POST", "/v1/workspaces", device, json={"name": "ночь 夜"})).json
    workspace_id = await house.workspace(device, "ночь 夜")
    head = {
        "workspace_id": str(workspace_id), "epoch": 1, "seq": 0, "chain": first_chain(workspace_id).hex(),
    }  # fmt: skip
    assert made == {**head, "name": "ночь 夜", "role": "owner", "owner": email}
    assert (await house.call("GET", "/v1/workspaces", device)).json == {"workspaces": [made]}
    assert (await house.call("GET", "/v1/heads", device)).json == {"workspaces": [head]}


async def test_all_devices_are_bound_and_the_others_are_told(house):
    email = await house.person()
    first, second = await house.link(email), await house.link(email)
    async with await connect(first) as one, await connect(second) as two:
        to_first, to_second = await consume(one, first.queue), await consume(two, second.queue)
        workspace_id = await house.workspace(first)
        assert decode_inbox(await wait_message(to_second)) == MembershipChanged()
        await house.publish_change(workspace_id, b"news")
        assert await wait_message(to_second) == b"news"
        assert await wait_message(to_first) == b"news"  # and nothing before it: it knows what it made


async def test_asking_again_binds_what_is_not_bound(house):
    email = await house.person()
    first, second = await house.link(email), await house.link(email)
    await sql(house, "INSERT INTO workspaces (workspace_id, owner_id, name, head_chain) "
              "SELECT gen_random_uuid(), user_id, 'half made', '\\x00'::bytea || decode(repeat('00', 31), 'hex') "
              "FROM users WHERE email = $1", email)  # fmt: skip
    await sql(house, "INSERT INTO workspace_members SELECT workspace_id, owner_id, 'owner' FROM workspaces "
              "WHERE name = 'half made'")  # fmt: skip
    assert await house.keys(second.queue) == set()
    workspace_id = await house.workspace(first, "half made")
    assert await house.keys(first.queue) == await house.keys(second.queue) == {str(workspace_id)}


@pytest.mark.parametrize("name", ["", "  ", "a\tb", "a\0b", "n" * 101, "\u202etxt"])
async def test_a_name_that_will_not_do_is_refused(house, name):
    device = await house.link(await house.person())
    answer = await house.call("POST", "/v1/workspaces", device, json={"name": name})
    assert (answer.status, answer.code) == (400, "bad_name")

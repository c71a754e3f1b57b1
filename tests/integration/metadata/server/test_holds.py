"""What the guard holds: shown to the user's devices, accepted by one that is not held or with the password, undone by any."""

from typing import Any
from uuid import UUID, uuid4

from broker.messages import HoldDecided, decode_inbox
from tests.integration.metadata.server.house import (
    PASSWORD,
    Device,
    House,
    connect,
    consume,
    sql,
    wait_message,
)


async def hold(house: House, workspace_id: UUID, device: Device) -> UUID:
    """What a worker writes when it holds a commit of that device."""
    hold_id = uuid4()
    await sql(
        house,
        "INSERT INTO holds (workspace_id, device_id, hold_id, verdict, digest, request, deleted, rewritten, to_follow,"
        " recent, deleted_paths, rewritten_paths, held_at)"
        " VALUES ($1, $2, $3, 'held', '', '', 70, 2, 5, 1, '{a/b,c}', '{d}', now())",
        workspace_id,
        UUID(device.id),
        hold_id,
    )
    return hold_id


async def cast(house: House) -> tuple[Device, Device, UUID, UUID]:
    """A held device, another one of the same user, the workspace and the hold."""
    email = await house.person()
    held, other = await house.link(email, "laptop"), await house.link(email, "desk")
    workspace_id = await house.workspace(held)
    return held, other, workspace_id, await hold(house, workspace_id, held)


async def verdicts(house: House, workspace_id: UUID, device: Device) -> list[tuple[str, bool]]:
    answer = await house.call("GET", f"/v1/workspaces/{workspace_id}/holds", device)
    assert answer.status == 200
    return [(each["verdict"], each["current"]) for each in answer.json["holds"]]


async def decide(
    house: House, workspace_id: UUID, hold_id: UUID, what: str, device: Device, **body: str
) -> Any:
    path = f"/v1/workspaces/{workspace_id}/holds/{hold_id}/{what}"
    return await house.call("POST", path, device, json=body)


async def test_all_devices_of_the_user_see_what_is_held(house):
    held, other, workspace_id, hold_id = await cast(house)
    [seen] = (await house.call("GET", f"/v1/workspaces/{workspace_id}/holds", other)).json["holds"]
    assert seen.pop("held_at")
    assert seen == {
        "hold_id": str(hold_id),
        "workspace_id": str(workspace_id),
        "device_id": held.id,
        "device_name": "laptop",
        "current": False,
        "verdict": "held",
        "deleted": 70,
        "rewritten": 2,
        "to_follow": 5,
        "recent": 1,
        "deleted_paths": ["a/b", "c"],
        "rewritten_paths": ["d"],
    }
    assert await verdicts(house, workspace_id, held) == [("held", True)]


async def test_a_stranger_neither_sees_nor_decides(house):
    held, _, workspace_id, hold_id = await cast(house)
    stranger = await house.link(await house.person())
    own = await house.workspace(stranger)
    assert (await house.call("GET", f"/v1/workspaces/{workspace_id}/holds", stranger)).status == 404
    for what in ("accept", "undo"):
        for through in (workspace_id, own):
            answer = await decide(house, through, hold_id, what, stranger, password=PASSWORD)
            assert (answer.status, answer.code) == (404, "not_found")
    assert await verdicts(house, workspace_id, held) == [("held", True)]


async def test_another_member_neither_sees_nor_decides(house):
    held, _, workspace_id, hold_id = await cast(house)
    member = await house.link(await house.person())
    user_id = UUID(member.session["user_id"])
    await sql(house, "INSERT INTO workspace_members VALUES ($1, $2, 'owner')", workspace_id, user_id)
    assert await verdicts(house, workspace_id, member) == []
    assert (await decide(house, workspace_id, hold_id, "accept", member)).status == 404
    assert await verdicts(house, workspace_id, held) == [("held", True)]


async def test_the_held_device_cannot_accept_without_the_password(house):
    held, _, workspace_id, hold_id = await cast(house)
    for body in ({}, {"password": "a guess"}):
        answer = await decide(house, workspace_id, hold_id, "accept", held, **body)
        assert (answer.status, answer.code) == (403, "wrong_password")
    assert await verdicts(house, workspace_id, held) == [("held", True)]
    answer = await decide(house, workspace_id, hold_id, "accept", held, password=PASSWORD)
    assert (answer.status, answer.json["verdict"]) == (200, "accepted")
    [row] = await sql(
        house, "SELECT allowed, expires_at > now() AS lasts FROM holds WHERE hold_id = $1", hold_id
    )
    assert tuple(row) == (77, True)


async def test_passwords_cannot_be_tried_without_end(house):
    held, _, workspace_id, hold_id = await cast(house)
    found = [
        (await decide(house, workspace_id, hold_id, "accept", held, password=f"guess {number}")).status
        for number in range(11)
    ]
    assert found == [403] * 10 + [429]


async def test_another_device_accepts_by_its_credential_and_the_held_one_is_told(house):
    held, other, workspace_id, hold_id = await cast(house)
    connection = await connect(held)
    arrived = await consume(connection, held.queue)
    answer = await decide(house, workspace_id, hold_id, "accept", other)
    assert (answer.status, answer.json["verdict"], answer.json["current"]) == (200, "accepted", False)
    assert decode_inbox(await wait_message(arrived)) == HoldDecided(workspace_id=workspace_id)
    await connection.close()
    # Done again, it is the same.
    assert (await decide(house, workspace_id, hold_id, "accept", other)).json["verdict"] == "accepted"


async def test_undone_it_waits_for_the_held_device_alone(house):
    held, other, workspace_id, hold_id = await cast(house)
    path = f"/v1/workspaces/{workspace_id}/holds/{hold_id}"
    assert (await house.call("DELETE", path, held)).status == 204
    assert await verdicts(house, workspace_id, held) == [("held", True)]
    assert (await decide(house, workspace_id, hold_id, "undo", held)).json["verdict"] == "undone"
    assert (await decide(house, workspace_id, hold_id, "accept", other)).status == 404
    assert (await house.call("DELETE", path, other)).status == 204
    assert await verdicts(house, workspace_id, held) == [("undone", True)]
    for _ in range(2):
        assert (await house.call("DELETE", path, held)).status == 204
        assert await verdicts(house, workspace_id, held) == []


async def test_what_is_not_there_and_what_is_no_request_is_said(house):
    held, other, workspace_id, hold_id = await cast(house)
    assert (await decide(house, workspace_id, uuid4(), "accept", other)).status == 404
    assert (await house.call("POST", f"/v1/workspaces/{workspace_id}/holds/x/undo", held)).status == 400
    path = f"/v1/workspaces/{workspace_id}/holds/{hold_id}/accept"
    assert (await house.call("POST", path, other, data=b"no JSON")).status == 400


async def test_a_revoked_devices_commit_is_not_held_any_longer(house):
    held, other, workspace_id, _ = await cast(house)
    await house.call("DELETE", f"/v1/devices/{held.id}", other)
    assert await verdicts(house, workspace_id, other) == []
    assert await sql(house, "SELECT FROM holds WHERE workspace_id = $1", workspace_id) == []


async def test_what_is_past_its_time_is_swept(own_house):
    house = own_house
    held, other, workspace_id, hold_id = await cast(house)
    await decide(house, workspace_id, hold_id, "accept", other)
    await sql(
        house,
        "INSERT INTO touches VALUES ($1, $2, $3, now() - interval '25 hours'), ($1, $2, $4, now())",
        workspace_id,
        UUID(held.id),
        uuid4(),
        uuid4(),
    )
    await house.services.registry.sweep()
    assert len(await sql(house, "SELECT FROM holds")) == 1
    assert len(await sql(house, "SELECT FROM touches")) == 1
    await sql(house, "UPDATE holds SET expires_at = now() - interval '1 second'")
    assert await verdicts(house, workspace_id, other) == []
    await house.services.registry.sweep()
    assert await sql(house, "SELECT FROM holds") == []

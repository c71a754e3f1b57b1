"""Who gets in: each call's credential, and that what is another's looks as if it were not there."""

import uuid

import pytest

from metadata.server.app import make_app

OPEN = {"/v1/ca", "/v1/link", "/health/live", "/health/ready", "/metrics"}
OF_A_WORKSPACE = [
    ("GET", f"changes?epoch=1&after=0&chain={'00' * 32}"),
    ("GET", "snapshot"),
    ("POST", "versions"),
    ("GET", "deleted"),
]


async def test_every_other_call_needs_a_device(house):
    routes = make_app(house.services).router.routes()
    calls = {(route.method, route.resource.canonical) for route in routes if route.resource is not None}
    guarded = sorted(call for call in calls if call[1] not in OPEN and call[0] != "HEAD")
    assert len(guarded) == 16
    for method, path in guarded:
        answer = await house.call(method, path.format(id=uuid.uuid4(), hold_id=uuid.uuid4(), sha="0" * 64))
        assert (answer.status, answer.code) == (401, "forbidden"), path


@pytest.mark.parametrize("form", ["", "Bearer", "Bearer {id}", "Bearer {id}.", "Bearer .{secret}", "Basic {id}.{secret}",
                                  "Bearer {id}.{secret}x", "Bearer {other}.{secret}", "Bearer x.{secret}",
                                  "Bearer {unknown}.{secret}", "Bearer {id}.\udcff"])  # fmt: skip
async def test_a_credential_that_is_not_right_is_refused(house, form):
    device, other = await house.link(await house.person()), await house.link(await house.person())
    secret = device.session["device_secret"]
    header = form.format(id=device.id, secret=secret, other=other.id, unknown=uuid.uuid4())
    answer = await house.call("GET", "/v1/heads", headers={"Authorization": header})
    assert (answer.status, answer.code) == (401, "forbidden")
    assert (await house.call("GET", "/v1/heads", device)).status == 200


@pytest.mark.parametrize(("method", "path"), OF_A_WORKSPACE)
async def test_a_foreign_workspace_looks_like_none(house, method, path):
    owner, stranger = await house.link(await house.person()), await house.link(await house.person())
    workspace_id = await house.workspace(owner)
    foreign = await house.call(method, f"/v1/workspaces/{workspace_id}/{path}", stranger, data=b"\x90")
    absent = await house.call(method, f"/v1/workspaces/{uuid.uuid4()}/{path}", stranger, data=b"\x90")
    assert foreign.status == absent.status == 404
    assert foreign.body == absent.body
    assert foreign.code == "not_found"


async def test_a_foreign_workspace_is_in_no_list(house):
    owner, stranger = await house.link(await house.person()), await house.link(await house.person())
    await house.workspace(owner)
    for path in ("/v1/heads", "/v1/workspaces"):
        assert (await house.call("GET", path, stranger)).json == {"workspaces": []}
    assert (await house.call("POST", "/v1/session", stranger)).json["workspaces"] == []


async def test_a_foreign_device_looks_like_none_and_stays(house):
    device, stranger = await house.link(await house.person()), await house.link(await house.person())
    foreign = await house.call("DELETE", f"/v1/devices/{device.id}", stranger)
    absent = await house.call("DELETE", f"/v1/devices/{uuid.uuid4()}", stranger)
    assert foreign.status == absent.status == 404
    assert foreign.body == absent.body
    assert (await house.call("GET", "/v1/heads", device)).status == 200
    assert device.id in await house.users()


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/v1/heads", 405)])
async def test_what_is_no_call_is_answered_in_json_too(house, method, path, status):
    answer = await house.call(method, path)
    assert answer.status == status
    assert answer.json.keys() == {"code", "message"}


async def test_an_id_that_is_none_is_a_bad_request(house):
    device = await house.link(await house.person())
    answer = await house.call("GET", "/v1/workspaces/nonsense/snapshot", device)
    assert (answer.status, answer.code) == (400, "bad_request")

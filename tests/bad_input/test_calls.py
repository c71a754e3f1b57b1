"""HTTP calls that make no sense: refused with a stable code in JSON, and the servers live on."""

from __future__ import annotations

import io
import json
from uuid import UUID

import pytest

from tests.bad_input.wire import Http, Wire
from tests.machines.stack import Service

NOBODY = UUID(int=0xDEAD)
"""No device has this id."""


LINK = {"email": "a@example.com", "password": "x" * 8, "device_name": "d", "platform": "Linux"}


@pytest.fixture(scope="module", autouse=True)
def servers_live_on(service: Service):
    """Nothing in this room may end a server."""
    before = service.pids()
    yield
    assert service.pids() == before


def is_refusal(status: int, body: bytes) -> bool:
    """A client's fault, told as every refusal is."""
    return 400 <= status < 500 and set(json.loads(body)) >= {"code", "message"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        json.dumps({**LINK, "email": 7}).encode(),
        json.dumps({**LINK, "device_name": "x" * 10_000}).encode(),
        json.dumps({**LINK, "device_name": "a\0b"}).encode(),
        json.dumps({**LINK, "email": "nobody\0@example.com"}).encode(),
        b'{"email": ' + b"[" * 100_000,
    ],
)
async def test_nonsense_instead_of_a_password(service: Service, body: bytes):
    async with Http(service.told["metadata_url"]) as anyone:
        assert is_refusal(*await anyone.call("POST", "/v1/link", data=body))


async def test_a_body_without_an_end_is_cut_off(service: Service):
    async with Http(service.told["metadata_url"]) as anyone:
        status, _ = await anyone.call("POST", "/v1/link", data=io.BytesIO(b" " * 20_000_000))
        assert status == 413


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer x", "Bearer .", "Basic eDp5", f"Bearer {NOBODY}.secret", "Bearer \udcff"],
)
async def test_credentials_that_are_none(service: Service, wire: Wire, header: str):
    path = f"/v1/workspaces/{wire.workspace_id}/chunks/read"
    raw = {"Authorization": header.encode("utf-8", "surrogateescape").decode("latin-1")}
    async with Http(service.told["metadata_url"]) as metadata, Http(service.told["gateway_url"]) as gateway:
        assert await metadata.code("GET", "/v1/heads", headers=raw) == (401, "forbidden")
        assert await gateway.code("POST", path, data=bytes(32), headers=raw) == (401, "forbidden")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/workspaces/none/changes"),
        ("GET", "/v1/workspaces/{own}/changes"),
        ("GET", "/v1/workspaces/{own}/changes?epoch=x&after=y&chain=z"),
        ("GET", "/v1/workspaces/{own}/changes?epoch=0&after=-1&chain=" + "00" * 32),
        ("GET", "/v1/workspaces/{own}/changes?epoch=0&after=9999999999999999999999&chain=" + "00" * 32),
        ("GET", "/v1/workspaces/{own}/changes?epoch=0&after=0&chain=00"),
        ("POST", "/v1/workspaces/{own}/versions"),
        ("PUT", "/v1/bodies/none"),
        ("DELETE", "/v1/devices/none"),
        ("DELETE", f"/v1/devices/{NOBODY}"),
        ("POST", "/v1/workspaces"),
    ],
)
async def test_calls_that_make_no_sense(wire: Wire, method: str, path: str):
    told = await wire.metadata.call(method, path.replace("{own}", str(wire.workspace_id)), data=b"nonsense")
    assert is_refusal(*told)
    await wire.commit_good()

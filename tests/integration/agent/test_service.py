"""The device's HTTP client of the metadata server: streams that break, and refusals by their names."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar
from uuid import uuid4

import msgpack
import pytest
from aiohttp import web

from agent.service import LinkedSession, Service, Stream
from broker.errors import (
    Corrupt,
    CursorUnknown,
    Forbidden,
    HutchError,
    Misconfigured,
    NotFound,
    Refused,
    Unavailable,
)
from broker.messages import SnapshotNode, encode
from broker.model import ROOT, Cursor, Kind, first_chain

T = TypeVar("T")

WORKSPACE = uuid4()
START = Cursor(1, 0, first_chain(WORKSPACE))
HEAD = {"head": [1, 2, b"c" * 32], "count": 2}


@asynccontextmanager
async def answering(status: int, body: bytes, then_break: bool = False) -> AsyncIterator[Service]:
    """A client of a server that says this to everything."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        await response.write(body)
        if then_break:
            assert request.transport is not None
            request.transport.close()
        return response

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with Service(f"http://127.0.0.1:{runner.addresses[0][1]}/", "device.secret", None) as service:
            yield service
    finally:
        await runner.cleanup()


def packed(*objects: Any) -> bytes:
    return b"".join(msgpack.packb(value) for value in objects)


async def gather(stream: AbstractAsyncContextManager[Stream[T]], into: list[T]) -> None:
    """Read to the end; what came before an error is in `into`."""
    async with stream as records:
        async for record in records:
            into.append(record)


async def test_changes_come_in_order_with_their_head() -> None:
    body = packed(HEAD, b"one", b"two")
    async with answering(200, body) as service, service.changes(WORKSPACE, START) as changes:
        assert (changes.head, changes.count) == (Cursor(1, 2, b"c" * 32), 2)
        assert [entry async for entry in changes] == [b"one", b"two"]


@pytest.mark.parametrize("then_break", [False, True], ids=["ends early", "breaks off"])
async def test_short_stream_is_unavailable_after_what_came(then_break: bool) -> None:
    came: list[bytes] = []
    async with answering(200, packed(HEAD, b"one"), then_break) as service:
        with pytest.raises(Unavailable):
            await gather(service.changes(WORKSPACE, START), came)
    assert came in ([b"one"], []), "whatever came is as it was sent"


async def test_snapshot_gives_typed_nodes() -> None:
    node = SnapshotNode(node_id=uuid4(), parent_id=ROOT, name="a", kind=Kind.DIRECTORY, version=3)
    found: list[SnapshotNode] = []
    async with answering(200, packed({**HEAD, "count": 1}, encode(node))) as service:
        await gather(service.snapshot(WORKSPACE), found)
    assert found == [node]


STRANGE = {
    "an empty answer": (b"", Unavailable),
    "no head": (packed([1, 2]), Corrupt),
    "no MessagePack": (b"\xc1\xc1", Corrupt),
    "a record of another type": (packed({**HEAD, "count": 1}, "text"), Corrupt),
    "a record that is no node": (packed({**HEAD, "count": 1}, b"\x81\xa1x\x01"), Corrupt),
}


@pytest.mark.parametrize(("body", "error"), STRANGE.values(), ids=STRANGE.keys())
async def test_strange_streams_are_not_believed(body: bytes, error: type[HutchError]) -> None:
    async with answering(200, body) as service:
        with pytest.raises(error):
            await gather(service.snapshot(WORKSPACE), [])


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "forbidden", Forbidden),
        (403, "wrong_password", Forbidden),
        (404, "not_found", NotFound),
        (409, "cursor_unknown", CursorUnknown),
        (409, "taken", Refused),
        (422, "corrupt", Refused),
        (429, "too_many", Unavailable),
        (503, "unavailable", Unavailable),
    ],
)
async def test_refusals_come_by_their_names(status: int, code: str, error: type[HutchError]) -> None:
    async with answering(status, json.dumps({"code": code, "message": "do this"}).encode()) as service:
        with pytest.raises(HutchError, match="do this") as raised:
            await service.heads()
    assert type(raised.value) is error
    if not isinstance(raised.value, Unavailable):
        assert raised.value.code == code


async def test_page_of_a_proxy_is_translated_by_its_status() -> None:
    async with answering(502, b"<html>Bad gateway</html>") as service:
        with pytest.raises(Unavailable, match="502"):
            await service.session()


async def test_answer_that_is_not_understood_is_corrupt() -> None:
    async with answering(200, b'{"workspaces": [{"workspace_id": 7}]}') as service:
        with pytest.raises(Corrupt):
            await service.workspaces()


async def test_service_without_an_authority_has_none() -> None:
    async with answering(404, b'{"code": "not_found", "message": ""}') as service:
        assert await service.ca() is None


async def test_caller_keeps_its_own_errors() -> None:
    """A full disk while a stream is read is not the server's fault."""
    async with answering(200, packed(HEAD, b"one", b"two")) as service:
        with pytest.raises(OSError, match="full"):
            async with service.changes(WORKSPACE, START):
                raise OSError("full")


async def test_unknown_host_is_unavailable_and_no_address_is_misconfigured() -> None:
    async with Service("http://127.0.0.1:9", None, None) as nobody:
        with pytest.raises(Unavailable):
            await nobody.heads()
    async with Service("not an address", None, None) as nothing:
        with pytest.raises(Misconfigured):
            await nothing.heads()


def test_secrets_do_not_print() -> None:
    session = LinkedSession(
        device_id=uuid4(),
        user_id=uuid4(),
        email="a@example.org",
        gateway_url="http://gateway",
        amqp_url="amqp://broker",
        queue="device.1",
        workspaces=(),
        device_secret="hidden-one",
        amqp_password="hidden-two",
    )
    assert "hidden-" not in f"{session!r}{session}"
    assert session.credential == f"{session.device_id}.hidden-one"

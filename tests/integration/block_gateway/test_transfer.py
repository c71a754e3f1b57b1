"""The agent's transfers, against a real gateway."""

import asyncio
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from agent.transfer import Transfer
from block_gateway.stores.local import LocalStore
from block_gateway.wire import Codec, Frame, Header, make_frame
from broker.errors import Corrupt, Forbidden, NotFound, Unavailable
from broker.model import Chunk
from tests.integration.block_gateway.cast import Device, World, serve, sha

MIB = 1024 * 1024
Item = tuple[Chunk, Callable[[], bytes | None]]


def chunk_of(raw: bytes) -> Chunk:
    return Chunk(sha(raw), len(raw))


def item(raw: bytes) -> Item:
    return chunk_of(raw), lambda: raw


def ignore(_: int) -> None:
    """Progress that nobody watches."""


class Kept:
    """A sink that remembers, from any thread."""

    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def __call__(self, chunk: Chunk, raw: bytes) -> None:
        with self._lock:
            self.content[chunk.hash] = raw


@pytest.fixture
async def device(world: World) -> Device:
    return await world.device()


@pytest.fixture
async def workspace_id(world: World, device: Device) -> UUID:
    return await world.workspace(device.user_id)


@pytest.fixture
async def transfer(url: str, device: Device) -> AsyncIterator[Transfer]:
    async with Transfer(url, device.credential) as transfer:
        yield transfer


async def test_what_goes_up_comes_down(transfer: Transfer, workspace_id: UUID) -> None:
    chunks = [
        random.randbytes(4 * MIB),
        *(random.randbytes(random.randrange(1, 3_000)) for _ in range(2_000)),
        *(random.randbytes(MIB) for _ in range(20)),
        f"words of {workspace_id} ".encode() * 20_000,
    ]
    hashes = [sha(raw) for raw in chunks]
    assert await transfer.missing(workspace_id, hashes) == set(hashes)

    up: list[int] = []
    assert await transfer.upload(workspace_id, [item(raw) for raw in chunks], up.append) == set(hashes)
    assert sum(up) == sum(map(len, chunks))
    assert await transfer.missing(workspace_id, hashes) == set()
    assert 25 * MIB < transfer.bytes_up < sum(map(len, chunks)), "the words were compressed"

    sink, down = Kept(), list[int]()
    random.shuffle(chunks)
    wanted = [chunk_of(raw) for raw in chunks]
    assert await transfer.download(workspace_id, wanted, sink, down.append) == set()
    assert sink.content == {sha(raw): raw for raw in chunks}
    assert sum(down) == sum(map(len, chunks))
    assert 25 * MIB < transfer.bytes_down < sum(map(len, chunks))


async def test_file_that_changed_is_left_out(transfer: Transfer, workspace_id: UUID) -> None:
    def unreadable() -> bytes:
        raise PermissionError

    still, changed, closed = (random.randbytes(1_000) for _ in range(3))
    source: list[Item] = [item(still), (chunk_of(changed), lambda: None), (chunk_of(closed), unreadable)]
    told: list[int] = []
    assert await transfer.upload(workspace_id, source, told.append) == {sha(still)}
    assert sum(told) == 1_000


async def test_chunks_may_come_as_they_are_found(transfer: Transfer, workspace_id: UUID) -> None:
    chunks = [random.randbytes(100) for _ in range(10)]

    async def found() -> AsyncIterator[Item]:
        for raw in chunks:
            yield item(raw)

    assert await transfer.upload(workspace_id, found(), ignore) == {sha(raw) for raw in chunks}


async def test_nothing_to_do_is_no_request(workspace_id: UUID) -> None:
    async with Transfer("http://127.0.0.1:9", f"{uuid4()}.x") as nowhere:
        assert await nowhere.missing(workspace_id, []) == set()
        assert await nowhere.upload(workspace_id, [], ignore) == set()
        assert await nowhere.download(workspace_id, [], Kept(), ignore) == set()


async def test_a_gateway_that_has_moved_is_followed(url: str, device: Device, workspace_id: UUID) -> None:
    raw = random.randbytes(1_000)
    unreachable = asyncio.Event()
    transfer = Transfer("http://127.0.0.1:9", device.credential, on_unreachable=unreachable.set)
    async with transfer, asyncio.TaskGroup() as group:
        asking = group.create_task(transfer.missing(workspace_id, [sha(raw)]), name="ask")
        await unreachable.wait()
        await transfer.move(url)
        assert await asking == {sha(raw)}
        assert await transfer.upload(workspace_id, [item(raw)], ignore) == {sha(raw)}


async def test_who_waits_for_a_silent_gateway_follows_it_at_once(
    url: str, device: Device, workspace_id: UUID
) -> None:
    """Another program may have its port by now, and never answer."""
    asked = asyncio.Event()

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    hashes = [sha(random.randbytes(10))]
    server = await asyncio.start_server(fall_silent, "127.0.0.1", 0)
    silent = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Transfer(silent, device.credential) as transfer, asyncio.TaskGroup() as group:
        asking = group.create_task(transfer.missing(workspace_id, hashes), name="ask")
        await asked.wait()
        async with asyncio.timeout(30):  # its own patience with silence is twice that
            await transfer.move(url)
            assert await asking == set(hashes)


async def test_absent_chunks_are_named(transfer: Transfer, workspace_id: UUID) -> None:
    there, gone = random.randbytes(100), random.randbytes(100)
    await transfer.upload(workspace_id, [item(there)], ignore)
    sink = Kept()
    wanted = [chunk_of(gone), chunk_of(there), chunk_of(there)]
    assert await transfer.download(workspace_id, wanted, sink, ignore) == {sha(gone)}
    assert sink.content == {sha(there): there}


async def test_more_hashes_than_fit_a_request(transfer: Transfer, workspace_id: UUID) -> None:
    hashes = [sha(str(number).encode()) for number in range(70_000)]
    assert await transfer.missing(workspace_id, hashes) == set(hashes)


async def test_refusals_come_at_once_and_by_name(
    transfer: Transfer, world: World, workspace_id: UUID, device: Device
) -> None:
    with pytest.raises(NotFound):
        await transfer.missing(uuid4(), [sha(b"x")])
    shared = await world.workspace(await world.user(), viewer=device.user_id)
    with pytest.raises(Forbidden):
        await transfer.upload(shared, [item(b"a viewer's")], ignore)
    await world.revoke(device)
    with pytest.raises(Forbidden):
        await transfer.download(workspace_id, [chunk_of(b"x")], Kept(), ignore)


async def test_what_the_sink_raises_comes_out(transfer: Transfer, workspace_id: UUID) -> None:
    raw = random.randbytes(100)
    await transfer.upload(workspace_id, [item(raw)], ignore)

    def full(chunk: Chunk, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await transfer.download(workspace_id, [chunk_of(raw)], full, ignore)


async def test_cancelled_download_leaves_no_sink_running(transfer: Transfer, workspace_id: UUID) -> None:
    raw = random.randbytes(100)
    await transfer.upload(workspace_id, [item(raw)], ignore)
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(chunk: Chunk, content: bytes) -> None:
        begun.set()
        go_on.wait(20)
        ended.set()

    download = asyncio.create_task(
        transfer.download(workspace_id, [chunk_of(raw)], slow, ignore), name="download"
    )
    assert await asyncio.to_thread(begun.wait, 20)
    download.cancel()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await download
    assert ended.is_set(), "the caller may close its files now"


async def test_gateway_that_comes_back_is_found_again(
    world: World, pool: Any, local_store: LocalStore, device: Device, workspace_id: UUID
) -> None:
    """The connection is refused, then answered: nobody above notices."""
    raw = random.randbytes(100)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))  # taken, but nobody listens
        port = door.getsockname()[1]
        async with Transfer(f"http://127.0.0.1:{port}", device.credential) as transfer:
            upload = asyncio.create_task(transfer.upload(workspace_id, [item(raw)], ignore), name="upload")
            await asyncio.sleep(0)
            door.close()
            async with serve(pool, local_store, port):
                assert await upload == {sha(raw)}


async def test_gateway_that_stays_away_is_unavailable(
    workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.transfer._FIRST_DELAY_S", 0.001)
    async with Transfer("http://127.0.0.1:9", f"{uuid4()}.x") as transfer:
        with pytest.raises(Unavailable):
            await transfer.missing(workspace_id, [sha(b"x")])


@asynccontextmanager
async def answer_with(body: bytes) -> AsyncIterator[str]:
    async def read(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body)

    app = web.Application()
    app.router.add_post("/v1/workspaces/{id}/chunks/read", read)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


BAD_ANSWERS = {
    "other bytes": (Frame(Header(sha(b"raw"), Codec.RAW, 3, 3), b"bad").encode(), Corrupt),
    "another chunk": (make_frame(sha(b"two"), b"two").encode(), Corrupt),
    "another size": (Frame(Header(sha(b"raw"), Codec.RAW, 4, 4), b"raw!").encode(), Corrupt),
    "more than was asked for": (make_frame(sha(b"raw"), b"raw").encode() * 2, Corrupt),
    "no frames": (b"<html>" * 20, Corrupt),
    "nothing": (b"", Unavailable),
    "half a frame": (make_frame(sha(b"raw"), b"raw").encode()[:-1], Unavailable),
}


@pytest.mark.parametrize(("body", "error"), BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_bad_answers_are_not_believed(
    monkeypatch: pytest.MonkeyPatch, body: bytes, error: type[Exception]
) -> None:
    monkeypatch.setattr("agent.transfer._FIRST_DELAY_S", 0.001)
    sink = Kept()
    async with answer_with(body) as url, Transfer(url, f"{uuid4()}.x") as transfer:
        with pytest.raises(error):
            await transfer.download(uuid4(), [chunk_of(b"raw")], sink, ignore)
    assert set(sink.content.values()) <= {b"raw"}

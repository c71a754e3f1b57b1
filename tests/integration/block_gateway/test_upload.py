"""Uploads: proven before they are believed, durable before they are answered, kept as far as they came."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest
from backports import zstd

from block_gateway.packs import Packs
from block_gateway.stores.contract import Store, StoreFull
from block_gateway.stores.local import LocalStore
from block_gateway.wire import Codec, Frame, Header, unpack_frame
from broker.errors import Unavailable
from tests.integration.block_gateway.cast import Caller, Device, World, frame_of, serve, sha, wait_until

Callers = Callable[[Device | None], Caller]
MIB = 1024 * 1024


def noise(size: int) -> bytes:
    return random.randbytes(size)


async def member(world: World) -> tuple[Device, UUID]:
    device = await world.device()
    return device, await world.workspace(device.user_id)


async def is_known(world: World, raw: bytes) -> bool:
    return await world.pack_of(raw) is not None


async def known(world: World, *chunks: bytes) -> list[bool]:
    return [await is_known(world, raw) for raw in chunks]


async def test_round_trip_on_every_store(
    world: World, store: Store, pool: Any, session: aiohttp.ClientSession
) -> None:
    device, workspace_id = await member(world)
    text = f"text of {workspace_id} ".encode() * 1_000
    chunks = [
        noise(100),
        noise(3 * MIB),
        text,
        noise(4 * MIB),
        *(noise(900) for _ in range(300)),
    ]
    async with serve(pool, store) as url:
        client = Caller(session, url, device.credential)
        assert len(await client.missing(workspace_id, *chunks)) == len(chunks)
        answer = await client.upload(workspace_id, *chunks)
        assert (answer.status, answer.body) == (200, b'{"stored": 304}')
        assert await client.missing(workspace_id, *chunks) == []
        assert [unpack_frame(frame) for frame in await client.frames(workspace_id, *chunks)] == chunks


async def test_small_chunks_lie_together_and_large_ones_alone(world: World, caller: Callers) -> None:
    device, workspace_id = await member(world)
    small, large = [noise(1_000) for _ in range(500)], [noise(3 * MIB) for _ in range(2)]
    await caller(device).upload(workspace_id, *small[:250], *large, *small[250:])
    assert len({await world.pack_of(raw) for raw in small}) == 1
    assert len({await world.pack_of(raw) for raw in [small[0], *large]}) == 3


async def test_pack_is_bounded(world: World, caller: Callers) -> None:
    device, workspace_id = await member(world)
    chunks = [noise(MIB) for _ in range(9)]
    await caller(device).upload(workspace_id, *chunks)
    assert len({await world.pack_of(raw) for raw in chunks}) == 3


async def test_same_chunk_twice_in_one_upload_is_stored_once(world: World, caller: Callers) -> None:
    device, workspace_id = await member(world)
    raw = noise(100)
    assert (await caller(device).upload(workspace_id, raw, raw)).body == b'{"stored": 2}'
    assert [unpack_frame(frame) for frame in await caller(device).frames(workspace_id, raw)] == [raw]


LIES = {
    "other bytes": Frame(Header(sha(b"this"), Codec.RAW, 4, 4), b"that"),
    "a bomb": Frame(
        Header(sha(b"x"), Codec.ZSTD, 100_000, len(bomb := zstd.compress(bytes(256 * MIB)))), bomb
    ),
    "a size that lies": Frame(Header(sha(bytes(50)), Codec.ZSTD, 49, len(short := zstd.compress(bytes(50)))), short),
    "an absent frame": Frame(Header(sha(b"y"), Codec.ABSENT, 0, 0), b""),
    "no header": Frame(Header(sha(b"z"), Codec.RAW, 5 * MIB, 5 * MIB), b""),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_lie_is_refused_and_what_came_before_is_kept(world: World, caller: Callers, lie: Frame) -> None:
    device, workspace_id = await member(world)
    before, after = noise(100), noise(100)
    answer = await caller(device).send(workspace_id, [frame_of(before), lie, frame_of(after)])
    assert (answer.status, answer.code) == (422, "corrupt")
    assert await known(world, before, after) == [True, False]
    assert await world.pool.fetchval("SELECT count(*) FROM chunks WHERE hash = $1", lie.header.hash) == 0


async def test_truncated_stream_is_refused_and_whole_frames_are_kept(world: World, caller: Callers) -> None:
    device, workspace_id = await member(world)
    whole, cut = noise(100), noise(100)
    body = frame_of(whole).encode() + frame_of(cut).encode()[:-1]
    answer = await caller(device).post(workspace_id, "chunks", body)
    assert (answer.status, answer.code) == (422, "corrupt")
    assert await known(world, whole, cut) == [True, False]


async def test_sender_that_goes_away_keeps_what_it_sent(world: World, url: str) -> None:
    device, workspace_id = await member(world)
    gathered, alone = noise(100), noise(3 * MIB)
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = b"".join(frame_of(raw).encode() for raw in (gathered, alone, noise(5_000)))[:-1]
    writer.write(
        f"POST /v1/workspaces/{workspace_id}/chunks HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n"
        f"Authorization: Bearer {device.credential}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    await wait_until(lambda: is_known(world, alone))
    assert not await is_known(world, gathered), "it waits for others to lie with"
    writer.close()
    await wait_until(lambda: is_known(world, gathered))


async def test_device_revoked_in_the_middle_stores_nothing_more(
    world: World, caller: Callers, local_store: LocalStore
) -> None:
    device, workspace_id = await member(world)
    first, second = noise(3 * MIB), noise(3 * MIB)

    async def body() -> AsyncIterator[bytes]:
        yield frame_of(first).encode()
        await wait_until(lambda: is_known(world, first))
        await world.revoke(device)
        yield frame_of(second).encode()

    answer = await caller(device).post(workspace_id, "chunks", body())
    assert (answer.status, answer.code) == (401, "forbidden")
    assert await known(world, first, second) == [True, False]
    assert [pack async for pack in local_store.list_packs()] == [await world.pack_of(first)]


async def test_editor_who_becomes_a_viewer_in_the_middle_stores_nothing_more(
    world: World, caller: Callers
) -> None:
    device, workspace_id = await member(world)
    first, second = noise(3 * MIB), noise(3 * MIB)

    async def body() -> AsyncIterator[bytes]:
        yield frame_of(first).encode()
        await wait_until(lambda: is_known(world, first))
        await world.remove_member(workspace_id, device.user_id)
        await world.add_member(workspace_id, device.user_id, "viewer")
        yield frame_of(second).encode()

    answer = await caller(device).post(workspace_id, "chunks", body())
    assert (answer.status, answer.code) == (403, "forbidden")
    assert await known(world, first, second) == [True, False]


async def test_pack_that_may_be_known_already_is_not_discarded(
    world: World, caller: Callers, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has it, its answer is lost, and the author is revoked before the second try."""
    device, workspace_id = await member(world)
    other, elsewhere = await member(world)
    raw, index, lost = noise(100), Packs._index_once, list[bool]()

    async def lose_answer(packs: Packs, author: Any, pack: Any) -> bool:
        done = await index(packs, author, pack)
        if not lost:
            lost.append(done)
            await world.revoke(device)
            raise Unavailable("the connection was lost")
        return done

    monkeypatch.setattr(Packs, "_index_once", lose_answer)
    answer = await caller(device).upload(workspace_id, raw)
    assert (answer.status, lost) == (401, [True])
    assert [pack async for pack in local_store.list_packs()] == [await world.pack_of(raw)]
    assert (await caller(other).upload(elsewhere, raw)).status == 200
    assert unpack_frame((await caller(other).frames(elsewhere, raw))[0]) == raw


class NarrowStore(LocalStore):
    """A store that is full until somebody makes room."""

    is_full = True

    async def put(self, pack_id: UUID, data: bytes) -> None:
        if self.is_full:
            raise StoreFull("full")
        await super().put(pack_id, data)


async def test_full_store_is_507_and_loses_nothing(
    world: World, pool: Any, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    device, workspace_id = await member(world)
    raw = noise(100)
    async with NarrowStore(tmp_path / "narrow") as store, serve(pool, store) as url:
        client = Caller(session, url, device.credential)
        answer = await client.upload(workspace_id, raw)
        assert (answer.status, answer.code) == (507, "store_full")
        assert await client.missing(workspace_id, raw) == [sha(raw)]
        store.is_full = False
        assert (await client.upload(workspace_id, raw)).status == 200
        assert unpack_frame((await client.frames(workspace_id, raw))[0]) == raw


async def test_upload_outlives_a_lost_database_connection(world: World, caller: Callers, dsn: str) -> None:
    device, workspace_id = await member(world)
    raw = noise(100)
    other = await asyncpg.connect(dsn)
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    async def somebody_waits() -> bool:
        return await other.fetchval(waiting) is not None

    async with asyncio.TaskGroup() as group, other.transaction():
        await other.execute("LOCK TABLE packs IN ACCESS EXCLUSIVE MODE")
        upload = group.create_task(caller(device).upload(workspace_id, raw), name="upload")
        await wait_until(somebody_waits)
        await other.execute("SELECT pg_terminate_backend($1)", await other.fetchval(waiting))
    await other.close()
    assert upload.result().status == 200
    assert await known(world, raw) == [True]


@pytest.mark.parametrize(("size", "status", "code"), [(33, 422, "corrupt"), (65_537 * 32, 413, "too_large")])
@pytest.mark.parametrize("call", ["chunks/missing", "chunks/read"])
async def test_list_of_hashes_is_checked(
    world: World, caller: Callers, call: str, size: int, status: int, code: str
) -> None:
    device, workspace_id = await member(world)
    answer = await caller(device).post(workspace_id, call, bytes(size))
    assert (answer.status, answer.code) == (status, code)


async def test_most_hashes_in_one_question(world: World, caller: Callers) -> None:
    device, workspace_id = await member(world)
    raw = noise(10)
    await caller(device).upload(workspace_id, raw)
    hashes = [sha(str(number).encode()) for number in range(65_535)]
    answer = await caller(device).post(workspace_id, "chunks/missing", b"".join([*hashes, sha(raw)]))
    assert answer.body == b"".join(hashes)


async def test_store_of_a_file_system_that_is_full_leaves_nothing(
    local_store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("block_gateway.stores.local.os.fsync", no_room)
        with pytest.raises(StoreFull):
            await local_store.put(uuid4(), b"data")
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


async def test_temporary_files_of_a_dead_gateway_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    root = tmp_path / "store"
    async with LocalStore(root):
        (living,) = (root / "temporary").iterdir()
        (living / "half").write_bytes(b"half a pack")
        dead = root / "temporary" / uuid4().hex
        dead.mkdir()
        (dead / "half").write_bytes(b"half a pack")
        async with LocalStore(root):
            assert (living / "half").exists()
            assert not dead.exists()


async def test_packs_are_private(local_store: LocalStore, tmp_path: Path) -> None:
    await local_store.put(uuid4(), b"data")
    (pack,) = (path for path in (tmp_path / "store" / "packs").rglob("*") if path.is_file())
    assert pack.stat().st_mode & 0o777 == 0o600
    assert pack.parent.stat().st_mode & 0o077 == 0

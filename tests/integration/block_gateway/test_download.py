"""Downloads: in order, through packs that move and packs that are lost, and never a part that looks whole."""

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from block_gateway.stores.local import LocalStore
from block_gateway.wire import Codec, unpack_frame
from broker.errors import Unavailable
from tests.integration.block_gateway.cast import Caller, Device, World, serve, sha

Callers = Callable[[Device | None], Caller]
MIB = 1024 * 1024


def noise(size: int) -> bytes:
    return random.randbytes(size)


class WatchedStore(LocalStore):
    """A store that calls `before_read` before it reads."""

    before_read: Callable[[UUID], Awaitable[None]] | None = None

    async def get_range(self, pack_id: UUID, offset: int, length: int) -> bytes:
        if self.before_read is not None:
            await self.before_read(pack_id)
        return await super().get_range(pack_id, offset, length)


async def member(world: World) -> tuple[Device, UUID]:
    device = await world.device()
    return device, await world.workspace(device.user_id)


async def test_chunks_come_in_the_order_asked_for(world: World, caller: Callers) -> None:
    device, workspace_id = await member(world)
    chunks = [noise(random.randrange(1, 20_000)) for _ in range(200)]
    await caller(device).upload(workspace_id, *chunks)
    asked = [*random.sample(chunks, 150), chunks[3], b"nobody has it", chunks[3], chunks[4]]
    frames = await caller(device).frames(workspace_id, *asked)
    assert [frame.header.hash for frame in frames] == [sha(raw) for raw in asked]
    assert [frame.header.codec is Codec.ABSENT for frame in frames].count(True) == 1
    present = [frame for frame in frames if frame.header.codec is not Codec.ABSENT]
    assert [unpack_frame(frame) for frame in present] == [raw for raw in asked if raw != b"nobody has it"]


async def test_compressed_chunks_are_passed_on_as_they_are_stored(world: World, caller: Callers) -> None:
    device, workspace_id = await member(world)
    raw = b"again and again " * 5_000
    await caller(device).upload(workspace_id, raw)
    (frame,) = await caller(device).frames(workspace_id, raw)
    assert frame.header.codec is Codec.ZSTD
    assert len(frame.stored) < len(raw) / 10


async def test_pack_rewritten_between_look_up_and_read_is_found_again(
    world: World, pool: Any, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    device, workspace_id = await member(world)
    chunks = [noise(1_000) for _ in range(3)]
    async with WatchedStore(tmp_path / "watched") as store, serve(pool, store) as url:
        client = Caller(session, url, device.credential)
        await client.upload(workspace_id, *chunks)

        async def rewrite(pack_id: UUID) -> None:
            store.before_read = None
            moved = uuid4()
            data = await store.get_range(pack_id, 0, 3_000)
            await store.put(moved, data[2_000:] + data[:2_000])
            await pool.execute("INSERT INTO packs VALUES ($1, 3000)", moved)
            await pool.execute(
                "UPDATE chunks SET pack_id = $2, pack_offset = (pack_offset + 1000) % 3000 WHERE pack_id = $1",
                pack_id,
                moved,
            )
            await store.delete(pack_id)

        store.before_read = rewrite
        assert [unpack_frame(frame) for frame in await client.frames(workspace_id, *chunks)] == chunks


async def test_lost_and_damaged_packs_take_nobody_with_them(
    world: World, caller: Callers, tmp_path: Path
) -> None:
    device, workspace_id = await member(world)
    lost, whole = noise(3 * MIB), noise(3 * MIB)
    early, late = noise(1_000), noise(1_000)
    for upload in ([lost], [whole], [early, late]):
        await caller(device).upload(workspace_id, *upload)
    path = {pack.name: pack for pack in (tmp_path / "store" / "packs").rglob("*") if pack.is_file()}
    path[str(await world.pack_of(lost))].unlink()
    os.truncate(path[str(await world.pack_of(early))], 1_500)
    frames = await caller(device).frames(workspace_id, lost, whole, early, late)
    assert [frame.header.codec for frame in frames] == [Codec.ABSENT, Codec.RAW, Codec.RAW, Codec.ABSENT]


async def test_device_revoked_in_the_middle_gets_no_whole_answer(
    world: World, pool: Any, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    device, workspace_id = await member(world)
    raw = noise(100)
    async with WatchedStore(tmp_path / "watched") as store, serve(pool, store) as url:
        client = Caller(session, url, device.credential)
        await client.upload(workspace_id, raw)

        async def revoke(_: UUID) -> None:
            await world.revoke(device)

        store.before_read = revoke
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.read(workspace_id, raw, *[b"nobody has it"] * 3_000)


async def test_failing_store_breaks_the_answer_off(
    world: World, pool: Any, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    device, workspace_id = await member(world)
    chunks = [noise(100_000), noise(3 * MIB)]
    async with WatchedStore(tmp_path / "watched") as store, serve(pool, store) as url:
        client = Caller(session, url, device.credential)
        await client.upload(workspace_id, *chunks)
        large = await world.pack_of(chunks[1])

        async def fail(pack_id: UUID) -> None:
            if pack_id == large:
                raise Unavailable("the disk fails")

        store.before_read = fail
        with pytest.raises(aiohttp.ClientError):
            await client.read(workspace_id, *chunks)


async def test_health_and_metrics(world: World, url: str, session: aiohttp.ClientSession) -> None:
    for path in ("/health/live", "/health/ready"):
        async with session.get(url + path) as response:
            assert response.status == 200
    async with session.get(url + "/metrics") as response:
        assert "hutch_gateway_upload_memory_bytes 0.0" in await response.text()
    async with session.get(url + "/nowhere") as response:
        assert (response.status, (await response.json())["code"]) == (404, "not_found")


async def test_not_ready_without_the_store(pool: Any, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    class Down(LocalStore):
        async def exists(self, pack_id: UUID) -> bool:
            raise Unavailable("no answer")

    async with Down(tmp_path / "down") as store, serve(pool, store) as url:
        async with session.get(url + "/health/ready") as response:
            assert (response.status, (await response.json())["code"]) == (503, "unavailable")
        async with session.get(url + "/health/live") as response:
            assert response.status == 200

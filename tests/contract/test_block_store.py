"""What every block store promises, held by both: a local directory and a real S3 server."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from block_gateway.stores.contract import Store
from block_gateway.stores.local import LocalStore
from block_gateway.stores.s3 import Bucket, S3Store
from broker.errors import Corrupt, NotFound


@pytest.fixture(params=["local", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with await make_store(request.param, request, tmp_path) as opened:
        yield opened


async def make_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if kind == "local":
        return LocalStore(tmp_path / "a store")
    server = request.getfixturevalue("s3_server")
    return S3Store(
        Bucket(
            name=f"packs-{uuid4().hex}",
            endpoint=server.endpoint,
            access_key=server.access_key,
            secret_key=server.secret_key,
            region=server.region,
        )
    )


async def test_any_range_of_a_pack_comes_back(store: Store) -> None:
    pack_id, data = uuid4(), os.urandom(300_000)
    await store.put(pack_id, data)
    assert await store.get_range(pack_id, 0, len(data)) == data
    assert await store.get_range(pack_id, 0, 1) == data[:1]
    assert await store.get_range(pack_id, 131_071, 70_000) == data[131_071:201_071]
    assert await store.get_range(pack_id, len(data) - 1, 1) == data[-1:]


async def test_largest_pack_comes_back(store: Store) -> None:
    pack_id, data = uuid4(), os.urandom(8 * 1024 * 1024)
    await store.put(pack_id, data)
    assert await store.get_range(pack_id, 0, len(data)) == data


@pytest.mark.parametrize(("offset", "length"), [(0, 101), (99, 2), (100, 1), (5_000, 10)])
async def test_range_past_the_end_is_corrupt(store: Store, offset: int, length: int) -> None:
    pack_id = uuid4()
    await store.put(pack_id, bytes(100))
    with pytest.raises(Corrupt):
        await store.get_range(pack_id, offset, length)


async def test_unknown_pack_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.get_range(uuid4(), 0, 1)


async def test_deleted_pack_is_gone_and_deleting_again_is_no_error(store: Store) -> None:
    pack_id = uuid4()
    await store.put(pack_id, b"data")
    assert await store.exists(pack_id)
    await store.delete(pack_id)
    assert not await store.exists(pack_id)
    await store.delete(pack_id)
    with pytest.raises(NotFound):
        await store.get_range(pack_id, 0, 1)


async def test_exists_says_no_for_what_never_was(store: Store) -> None:
    assert not await store.exists(uuid4())


async def test_list_names_every_pack_once(store: Store) -> None:
    pack_ids = {uuid4() for _ in range(20)}
    await asyncio.gather(*(store.put(pack_id, b"data") for pack_id in pack_ids))
    listed = [pack_id async for pack_id in store.list_packs()]
    assert sorted(listed) == sorted(pack_ids)


async def test_many_at_once_do_not_mix(store: Store) -> None:
    packs = {uuid4(): os.urandom(50_000) for _ in range(30)}
    await asyncio.gather(*(store.put(pack_id, data) for pack_id, data in packs.items()))
    read = await asyncio.gather(*(store.get_range(pack_id, 0, 50_000) for pack_id in packs))
    assert read == list(packs.values())


@pytest.mark.parametrize("kind", ["local", "s3"])
async def test_packs_outlive_the_store_object(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pack_id = uuid4()
    store = await make_store(kind, request, tmp_path)
    async with store:
        await store.put(pack_id, b"kept")
    async with store:
        assert await store.get_range(pack_id, 0, 4) == b"kept"

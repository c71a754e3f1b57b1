"""A database, both stores, and a gateway on each."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from block_gateway.stores.contract import Store
from block_gateway.stores.local import LocalStore
from block_gateway.stores.s3 import Bucket, S3Store
from metadata import database
from metadata.migrate import migrate
from tests.integration.block_gateway.cast import Caller, Device, World, serve
from tests.servers.fixtures import PostgresServer


@pytest.fixture(scope="module")
async def dsn(postgres_server: PostgresServer) -> str:
    dsn = await postgres_server.create_database()
    await migrate(dsn)
    return dsn


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Any]:
    pool = await database.connect(dsn)
    yield pool
    await database.close(pool)


@pytest.fixture
def world(pool: Any) -> World:
    return World(pool)


@pytest.fixture
async def local_store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    async with LocalStore(tmp_path / "store") as store:
        yield store


@pytest.fixture(params=["local", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "local":
        async with LocalStore(tmp_path / "store") as local:
            yield local
        return
    server = request.getfixturevalue("s3_server")
    bucket = Bucket(
        name=f"packs-{uuid4().hex}",
        endpoint=server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        region=server.region,
    )
    async with S3Store(bucket) as s3:
        yield s3


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def url(pool: Any, local_store: LocalStore) -> AsyncIterator[str]:
    """A gateway on a local store."""
    async with serve(pool, local_store) as url:
        yield url


@pytest.fixture
def caller(session: aiohttp.ClientSession, url: str) -> Callable[[Device | None], Caller]:
    """A client of that gateway for a device."""
    return lambda device: Caller(session, url, device.credential if device else None)

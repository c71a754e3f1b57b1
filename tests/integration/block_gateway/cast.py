"""The people, devices and workspaces that the gateway's tests are about, and a gateway to meet."""

import asyncio
import hashlib
import io
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp
from aiohttp import web

from block_gateway.app import Gateway
from block_gateway.stores.contract import Store
from block_gateway.wire import Frame, FrameParser, decode_hashes, make_frame
from broker.model import first_chain


def sha(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def frame_of(raw: bytes) -> Frame:
    return make_frame(sha(raw), raw)


@dataclass(frozen=True)
class Device:
    """A linked device and its credential."""

    device_id: UUID
    user_id: UUID
    credential: str = field(repr=False)


class World:
    """Accounts and trees, written straight into the database as the metadata server and the workers would."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def user(self) -> UUID:
        user_id = uuid4()
        await self.pool.execute(
            "INSERT INTO users (user_id, email, password_hash) VALUES ($1, $2, '')", user_id, f"{user_id}@x"
        )
        return user_id

    async def device(self, user_id: UUID | None = None) -> Device:
        owner = user_id or await self.user()
        device_id, secret = uuid4(), secrets.token_hex(32)
        await self.pool.execute(
            "INSERT INTO devices (device_id, user_id, name, secret_hash, broker_password_hash, queue_name)"
            " VALUES ($1, $2, 'laptop', $3, '', $4)",
            device_id,
            owner,
            sha(secret.encode()),
            f"device.{device_id.hex}",
        )
        return Device(device_id, owner, f"{device_id}.{secret}")

    async def revoke(self, device: Device) -> None:
        await self.pool.execute(
            "UPDATE devices SET revoked_at = now() WHERE device_id = $1", device.device_id
        )

    async def workspace(self, owner: UUID, **members: UUID) -> UUID:
        """A workspace; `members` by role."""
        workspace_id = uuid4()
        await self.pool.execute(
            "INSERT INTO workspaces (workspace_id, owner_id, name, head_chain) VALUES ($1, $2, $3, $4)",
            workspace_id,
            owner,
            str(workspace_id),
            first_chain(workspace_id),
        )
        for role, user_id in [("owner", owner), *members.items()]:
            await self.add_member(workspace_id, user_id, role)
        return workspace_id

    async def add_member(self, workspace_id: UUID, user_id: UUID, role: str) -> None:
        await self.pool.execute(
            "INSERT INTO workspace_members VALUES ($1, $2, $3)", workspace_id, user_id, role
        )

    async def remove_member(self, workspace_id: UUID, user_id: UUID) -> None:
        await self.pool.execute(
            "DELETE FROM workspace_members WHERE workspace_id = $1 AND user_id = $2", workspace_id, user_id
        )

    async def commit(self, workspace_id: UUID, *chunks: bytes) -> None:
        """The workspace has these chunks now."""
        await self.pool.executemany(
            "INSERT INTO workspace_chunks VALUES ($1, $2)", [(workspace_id, sha(raw)) for raw in chunks]
        )

    async def expire_proofs(self, user_id: UUID) -> None:
        await self.pool.execute(
            "UPDATE chunk_proofs SET expires_at = now() - interval '1 second' WHERE user_id = $1", user_id
        )

    async def pack_of(self, raw: bytes) -> Any:
        return await self.pool.fetchval("SELECT pack_id FROM chunks WHERE hash = $1", sha(raw))


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    body: bytes
    code: str | None = None


class Caller:
    """A raw HTTP client with a device's credential: no helper of the agent's in between."""

    def __init__(self, session: aiohttp.ClientSession, url: str, credential: str | None) -> None:
        self._session = session
        self._url = url
        self._headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}

    async def post(self, workspace_id: object, call: str, body: Any) -> Answer:
        url = f"{self._url}/v1/workspaces/{workspace_id}/{call}"
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        async with self._session.post(url, data=data, headers=self._headers) as response:
            content = await response.read()
            code = (await response.json())["code"] if response.status >= 400 else None
            return Answer(response.status, content, code)

    async def upload(self, workspace_id: object, *chunks: bytes) -> Answer:
        return await self.send(workspace_id, [frame_of(raw) for raw in chunks])

    async def send(self, workspace_id: object, frames: Iterable[Frame]) -> Answer:
        return await self.post(workspace_id, "chunks", b"".join(frame.encode() for frame in frames))

    async def read(self, workspace_id: object, *chunks: bytes) -> Answer:
        return await self.post(workspace_id, "chunks/read", b"".join(sha(raw) for raw in chunks))

    async def frames(self, workspace_id: object, *chunks: bytes) -> list[Frame]:
        return parse((await self.read(workspace_id, *chunks)).body)

    async def missing(self, workspace_id: object, *chunks: bytes) -> list[bytes]:
        answer = await self.post(workspace_id, "chunks/missing", b"".join(sha(raw) for raw in chunks))
        assert answer.status == 200
        return decode_hashes(answer.body)


def parse(body: bytes) -> list[Frame]:
    parser = FrameParser()
    parser.feed(body)
    frames = []
    while (frame := parser.take()) is not None:
        frames.append(frame)
    parser.finish()
    return frames


@asynccontextmanager
async def serve(pool: Any, store: Store, port: int = 0) -> AsyncIterator[str]:
    """A gateway in this process, on a free port if none is given; gives its URL."""
    runner = web.AppRunner(Gateway(pool, store).app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def wait_until(condition: Any, timeout_s: float = 20.0) -> None:
    """Wait for an async condition to hold."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110  the database tells nobody
            await asyncio.sleep(0.01)

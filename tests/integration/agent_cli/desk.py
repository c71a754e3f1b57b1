"""A real device of a service in memory, and the command line in its home: with its agent, or after it has ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import pytest
from aiohttp import web
from msgspec import structs

from agent.answers import Asked, Memory, answers_for
from agent.control import ControlServer
from agent.home import FolderRecord, Home
from block_gateway.wire import absent, decode_hashes, make_frame
from broker.messages import RetainedVersion, StreamHead, encode
from tests.agents.world import Device, World
from tests.integration.agent_cli.conftest import Outcome, Shell


class Desk:
    """Runs `hutch` on a device. While `asking` its agent answers; else it has to be stopped."""

    def __init__(self, device: Device, url: str, base: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.device = device
        self._memory = Memory()
        self.home = Home.open({"HUTCH_HOME": str(device.home), "HOME": str(base)})
        credential = structs.replace(device._credential(), metadata_url=url, gateway_url=url)
        self.home.save_credential(credential)
        record = FolderRecord(folder=str(device.path), workspace_id=device.world.workspace_id, name="home")
        self.home.add_folder(record)
        self._shell = Shell(
            {"HUTCH_HOME": str(device.home), "HOME": str(base)}, capture, pytest.MonkeyPatch()
        )

    async def __call__(self, *arguments: object) -> Outcome:
        """Run a command in a thread: the agent's side of the socket is in this loop."""
        return await asyncio.to_thread(self._shell, *arguments)

    def path(self, name: str) -> Path:
        return self.device.path / name

    def asked(self, folder: Path) -> Asked:
        assert folder == self.device.path
        found = self.device.folder
        return Asked(
            replica=found.replica,
            memory=self._memory,
            resolver=found.resolver,
            rules=lambda: found.looker.rules,
            is_paused=not self.device.may_run.is_set(),
        )

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """The running agent listens."""
        async with ControlServer(self.home.socket_path, answers_for(self)):
            yield


@asynccontextmanager
async def serving_history(world: World) -> AsyncIterator[str]:
    """The calls for chunks and for versions, over HTTP; its address."""

    async def chunks(request: web.Request) -> web.Response:
        body = b""
        for hash_ in decode_hashes(await request.read()):
            data = world.chunks.get(hash_)
            frame = None if data is None else make_frame(hash_, data)
            body += absent(hash_).encode() if frame is None else frame.header.encode() + frame.stored
        return web.Response(body=body)

    async def versions(request: web.Request) -> web.Response:
        wanted = msgpack.unpackb(await request.read())
        found = [v for v in world.store.versions.values() if v.node_id.bytes in wanted]
        records = [
            RetainedVersion(node_id=v.node_id, version=v.version, digest=v.digest, content=v.manifest)
            for v in found
        ]
        body = encode(StreamHead(count=len(records))) + b"".join(msgpack.packb(encode(r)) for r in records)
        return web.Response(body=body)

    app = web.Application()
    app.router.add_post("/v1/workspaces/{id}/chunks/read", chunks)
    app.router.add_post("/v1/workspaces/{id}/versions", versions)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()

"""The streams: changes since a cursor, a snapshot, and what is kept of some nodes. Bounded in memory and in time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final, cast
from uuid import UUID

import msgspec
import structlog
from aiohttp import web

from broker.errors import HutchError, Unavailable
from broker.model import Cursor
from metadata.registry import Credential
from metadata.server.answers import DEVICE_ID, bad_request, path_id
from metadata.server.services import SERVICES, Services

MAX_NODES_PER_CALL: Final = 1000
TURN_TIMEOUT_S: Final = 15.0
WRITE_TIMEOUT_S: Final = 60.0
STREAM_TIMEOUT_S: Final = 3600.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()

NodeId = bytes
_ids_decoder = msgspec.msgpack.Decoder(list[NodeId])


async def stream_changes(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`GET /v1/workspaces/{id}/changes`."""
    services = request.app[SERVICES]
    workspace = await services.registry.workspace_of_member(path_id(request), caller.user_id)
    cursor = _cursor(request)
    await services.catch_up.check_cursor(workspace, cursor)
    return await _send(request, services.catch_up.changes(workspace, cursor.seq))


async def stream_snapshot(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`GET /v1/workspaces/{id}/snapshot`."""
    services = request.app[SERVICES]
    workspace = await services.registry.workspace_of_member(path_id(request), caller.user_id)
    async with _turn(services):
        return await _send(request, services.catch_up.snapshot(workspace.workspace_id))


async def stream_versions(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`POST /v1/workspaces/{id}/versions`."""
    services = request.app[SERVICES]
    workspace = await services.registry.workspace_of_member(path_id(request), caller.user_id)
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        node_ids = _node_ids(await request.read())
    async with _turn(services):
        return await _send(request, services.catch_up.versions(workspace.workspace_id, node_ids))


async def stream_deleted(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`GET /v1/workspaces/{id}/deleted`."""
    services = request.app[SERVICES]
    workspace = await services.registry.workspace_of_member(path_id(request), caller.user_id)
    async with _turn(services):
        return await _send(request, services.catch_up.deleted(workspace.workspace_id))


def _cursor(request: web.Request) -> Cursor:
    query = request.query
    try:
        epoch, seq, chain = int(query["epoch"]), int(query["after"]), bytes.fromhex(query["chain"])
    except (KeyError, ValueError):
        raise bad_request("give epoch and after as numbers, chain in hex") from None
    if not (0 <= epoch < 2**63 and 0 <= seq < 2**63 and len(chain) == 32):
        raise bad_request("epoch, after or chain is out of range")
    return Cursor(epoch=epoch, seq=seq, chain=chain)


def _node_ids(body: bytes) -> list[UUID]:
    try:
        found = _ids_decoder.decode(body)
    except msgspec.MsgspecError:
        raise bad_request("the body is not a MessagePack list of node ids") from None
    if len(found) > MAX_NODES_PER_CALL or any(len(each) != 16 for each in found):
        raise bad_request(f"give at most {MAX_NODES_PER_CALL} node ids, of 16 bytes each")
    return [UUID(bytes=each) for each in set(found)]


@asynccontextmanager
async def _turn(services: Services) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TURN_TIMEOUT_S):
            await services.streams.acquire()
    except TimeoutError:
        raise Unavailable("too many snapshots are being read just now") from None
    try:
        yield
    finally:
        services.streams.release()


async def _send(request: web.Request, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send pieces as they come. What fails before the first is an answer; after it, the connection is broken off.

    A clean end would be believed less readily than a broken one, but both tell the reader that records are missing.
    """
    answer = web.StreamResponse(headers={"Content-Type": "application/x-msgpack"})
    async with aclosing(cast("AsyncGenerator[bytes, None]", pieces)) as source:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            first = await anext(source)
            await answer.prepare(request)
        try:
            async with asyncio.timeout(STREAM_TIMEOUT_S):
                await _write(answer, first)
                async for piece in source:
                    await _write(answer, piece)
                await answer.write_eof()
        except (HutchError, TimeoutError) as error:
            log.warning("stream.broken", device_id=request.get(DEVICE_ID), error=str(error) or "too slow")
            _break_off(request)
        except ConnectionError:
            pass  # the reader went away: it will come back with its cursor
    return answer


async def _write(answer: web.StreamResponse, piece: bytes) -> None:
    if piece:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await answer.write(piece)


def _break_off(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()

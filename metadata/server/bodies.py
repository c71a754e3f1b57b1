"""Staged bodies: commits too large for a message, put here first and then named by their hash."""

import asyncio
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Final

from aiohttp import web

from broker.errors import Corrupt, Refused
from broker.messages import MAX_BODY_SIZE_BYTES
from metadata.registry import Credential
from metadata.server.answers import bad_request
from metadata.server.services import SERVICES, Services

RECEIVE_TIMEOUT_S: Final = 900.0
PIECE_SIZE_BYTES: Final = 256 * 1024

_HASH: Final = re.compile(r"[0-9a-f]{64}")


async def stage_body(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`PUT /v1/bodies/{sha}`: received to a temporary file, verified, and kept in PostgreSQL for a day."""
    services = request.app[SERVICES]
    name = request.match_info["sha"]
    if not _HASH.fullmatch(name):
        raise bad_request("the address holds no SHA-256 in lower-case hex")
    if (request.content_length or 0) > MAX_BODY_SIZE_BYTES:
        raise _too_large()
    async with _turn(services), asyncio.timeout(RECEIVE_TIMEOUT_S):
        with tempfile.TemporaryFile(prefix="hutch-body-") as file:
            digest = await _receive(request, file)
            if digest.hex() != name:
                raise Corrupt("the body does not match its hash")
            async with services.stores:
                body = await asyncio.to_thread(_read_all, file)
                await services.registry.stage_body(caller.device_id, digest, body)
    return web.Response(status=204)


async def _receive(request: web.Request, file: IO[bytes]) -> bytes:
    total = hashlib.sha256()
    size_bytes = 0
    async for piece in request.content.iter_chunked(PIECE_SIZE_BYTES):
        size_bytes += len(piece)
        if size_bytes > MAX_BODY_SIZE_BYTES:
            raise _too_large()
        await asyncio.to_thread(_take, piece, total, file)
    return total.digest()


def _take(piece: bytes, total: "hashlib._Hash", file: IO[bytes]) -> None:
    total.update(piece)
    file.write(piece)


def _read_all(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _too_large() -> Refused:
    return Refused(f"a body may have {MAX_BODY_SIZE_BYTES} bytes", "too_large")


@asynccontextmanager
async def _turn(services: Services) -> AsyncIterator[None]:
    if services.uploads.locked():
        raise Refused("too many bodies are being received just now: try again soon", "busy")
    async with services.uploads:
        yield

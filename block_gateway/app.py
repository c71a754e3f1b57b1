"""The gateway's HTTP face: `docs/protocol.md`, "Block gateway". Each call asks who it is, then carries bytes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

import aiohttp
import structlog
from aiohttp import web

from block_gateway.access import Access, Caller, Unauthenticated, parse_credential
from block_gateway.budget import Budget
from block_gateway.download import Download
from block_gateway.metrics import Metrics
from block_gateway.packs import Packs
from block_gateway.stores.contract import Store, StoreFull
from block_gateway.upload import Upload
from block_gateway.wire import CONTENT_TYPE, HASH_SIZE_BYTES, MAX_HASHES, decode_hashes, encode_hashes
from broker.errors import Corrupt, Forbidden, HutchError, NotFound, Refused, Retryable, Unavailable

MAX_UPLOADS: Final = 64
"""Open packs. Whoever comes above it waits, unread."""

UPLOAD_MEMORY_BYTES: Final = 40 * 1024 * 1024
DOWNLOAD_MEMORY_BYTES: Final = 40 * 1024 * 1024

_IDLE_TIMEOUT_S: Final = 60.0
_READY_TIMEOUT_S: Final = 5.0
_MAX_HASHES_SIZE_BYTES: Final = MAX_HASHES * HASH_SIZE_BYTES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = structlog.get_logger()


class Gateway:
    """The calls, and what they share.

    Args:
        pool: An `asyncpg.Pool` to a database of the right schema.
        store: An open store.
    """

    def __init__(self, pool: Any, store: Store) -> None:
        self._access = Access(pool)
        self._packs = Packs(pool, store, self._access)
        self._uploads = asyncio.Semaphore(MAX_UPLOADS)
        self._upload_memory = Budget(UPLOAD_MEMORY_BYTES)
        self._download_memory = Budget(DOWNLOAD_MEMORY_BYTES)
        self.metrics = Metrics()
        self.metrics.watch("upload_memory_bytes", "Claimed by uploads.", lambda: self._upload_memory.used)
        self.metrics.watch(
            "download_memory_bytes", "Claimed by downloads.", lambda: self._download_memory.used
        )
        self._is_stopping = False
        self._busy = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def app(self) -> web.Application:
        """The application, ready to be served."""
        app = web.Application(middlewares=[self._answer_errors])
        workspace = "/v1/workspaces/{workspace_id}/chunks"
        app.add_routes(
            [
                web.post(workspace + "/missing", self.missing, name="missing"),
                web.post(workspace, self.upload, name="upload"),
                web.post(workspace + "/read", self.read, name="read"),
                web.get("/health/live", self.live),
                web.get("/health/ready", self.ready),
                web.get("/metrics", self.show_metrics),
            ]
        )
        return app

    async def stop(self, timeout_s: float) -> None:
        """Refuse what comes now (503: elsewhere, or later), and wait until what is in hand is finished.

        The server's own shutdown would throw away what running uploads still send: call this before it.
        """
        self._is_stopping = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()
        except TimeoutError:
            _log.warning("requests.abandoned", requests=self._busy)

    async def missing(self, request: web.Request) -> web.StreamResponse:
        """Which of the hashes the user has to upload."""
        caller = await self._authorize(request)
        hashes = await _read_hashes(request)
        missing = await self._packs.find_missing(caller, hashes)
        return web.Response(body=encode_hashes(missing), content_type=CONTENT_TYPE)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Take a stream of chunk frames."""
        caller = await self._authorize(request)
        caller.require_writer()
        async with self._uploads:
            upload = Upload(self._packs, self._upload_memory, caller, _Body(request))
            try:
                await upload.run()
            finally:
                self.metrics.chunks.labels("stored").inc(upload.stored)
                self.metrics.chunk_bytes.labels("in").inc(upload.stored_bytes)
        _say(caller, "chunks.stored", chunks=upload.stored, size_bytes=upload.stored_bytes)
        return web.json_response({"stored": upload.stored})

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Send the chunks asked for, as a stream of chunk frames."""
        caller = await self._authorize(request)
        hashes = await _read_hashes(request)
        download = Download(self._packs, self._access, self._download_memory, caller, hashes)
        await download.start()
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        await response.prepare(request)
        try:
            await download.run(_patient_writer(response))
            await response.write_eof()
        except (HutchError, OSError) as error:  # TimeoutError is an OSError
            _break_off(request, error)
        finally:
            self.metrics.chunks.labels("sent").inc(download.sent)
            self.metrics.chunks.labels("absent").inc(download.missed)
            self.metrics.chunk_bytes.labels("out").inc(download.sent_bytes)
        _say(
            caller,
            "chunks.sent",
            chunks=download.sent,
            absent=download.missed,
            size_bytes=download.sent_bytes,
        )
        return response

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The process answers."""
        return web.json_response({"status": "live"})

    async def ready(self, request: web.Request) -> web.StreamResponse:
        """It can do its work: PostgreSQL and the store answer, and it is not about to stop."""
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await self._packs.ping()
        except TimeoutError as error:
            raise Unavailable("PostgreSQL or the store does not answer") from error
        return web.json_response({"status": "ready"})

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        """Prometheus' text."""
        return web.Response(body=self.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _authorize(self, request: web.Request) -> Caller:
        credential = parse_credential(request.headers.get("Authorization"))
        try:
            workspace_id = UUID(request.match_info["workspace_id"])
        except ValueError:
            raise NotFound("there is no such workspace") from None
        return await self._access.authorize(credential, workspace_id)

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Say every error in JSON, with a stable code; count and time every call."""
        begun = time.monotonic()
        call = request.match_info.route.name or "other"
        self._busy += 1
        self._is_idle.clear()
        try:
            response = await self._answer(request, handler)
        finally:
            self._busy -= 1
            if not self._busy:
                self._is_idle.set()
        self.metrics.requests.labels(call, response.status).inc()
        self.metrics.durations.labels(call).observe(time.monotonic() - begun)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if self._is_stopping and request.path != "/health/live":
                raise Unavailable("this gateway is about to stop")
            return await handler(request)
        except HutchError as error:
            return _error_response(error)
        except web.HTTPException as error:
            return _json_error(error.status, "not_found" if error.status == 404 else "refused", error.reason)
        except Exception as error:
            _log.exception("request.failed", error=type(error).__name__)
            return _json_error(500, "internal", "the gateway met an error of its own")


class _Body:
    """A request's body, its end by a broken line said in our words."""

    def __init__(self, request: web.Request) -> None:
        self._content = request.content

    async def readany(self) -> bytes:
        try:
            return await self._content.readany()
        except (web.RequestPayloadError, aiohttp.ClientError, ConnectionError) as error:
            raise Unavailable("the sender went away") from error


async def _read_hashes(request: web.Request) -> list[bytes]:
    body = _Body(request)
    gathered = bytearray()
    try:
        async with asyncio.timeout(_IDLE_TIMEOUT_S):
            while data := await body.readany():
                gathered += data
                if len(gathered) > _MAX_HASHES_SIZE_BYTES:
                    raise Refused(f"at most {MAX_HASHES} hashes a request", "too_large")
    except TimeoutError as error:
        raise Unavailable("the sender fell silent") from error
    return decode_hashes(bytes(gathered))


def _patient_writer(response: web.StreamResponse) -> Callable[[bytes | memoryview], Awaitable[None]]:
    async def write(data: bytes | memoryview) -> None:
        # Idle, not total: as long as the reader takes some, it may take its time.
        async with asyncio.timeout(_IDLE_TIMEOUT_S):
            await response.write(data)

    return write


def _break_off(request: web.Request, error: Exception) -> None:
    """End an answer that has begun so that nobody takes it for a whole one."""
    _log.warning("download.broken_off", error=str(error) or type(error).__name__)
    if request.transport is not None:
        request.transport.abort()


_STATUS: Final = (
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Corrupt, 422),
    (StoreFull, 507),
    (Retryable, 503),
)


def _error_response(error: HutchError) -> web.Response:
    if error.code == "too_large":
        return _json_error(413, error.code, str(error))
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return _json_error(status, error.code, str(error))
    return _json_error(500, error.code, str(error))


def _json_error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


def _say(caller: Caller, event: str, **fields: int) -> None:
    _log.info(
        event, workspace_id=str(caller.workspace_id), device_id=str(caller.credential.device_id), **fields
    )

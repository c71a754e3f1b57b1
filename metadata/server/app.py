"""The metadata server: its calls, its parts, and its life from the first connection to the last answer."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from broker.connection import BrokerAddress, Publisher
from broker.errors import Misconfigured
from broker.management import Management
from metadata import database
from metadata.catch_up import CatchUp
from metadata.registry import Registry
from metadata.server import bodies, devices, health, holds, linking, reading, workspaces
from metadata.server.answers import MAX_REQUEST_SIZE_BYTES, answer_errors, in_time
from metadata.server.auth import for_device
from metadata.server.follower import Follower
from metadata.server.housekeeping import keep_house
from metadata.server.metrics import Metrics
from metadata.server.services import POOL_SIZE, SERVICES, Services
from metadata.server.settings import Settings
from metadata.server.workspaces import tell_membership

STOP_TIMEOUT_S: Final = 15.0
CANCEL_TIMEOUT_S: Final = 2.0
"""What is still in hand after `STOP_TIMEOUT_S` (a snapshot for a slow reader) is cancelled, and gets so long to end."""

PUBLISHER_IDLE_CLOSE_S: Final = 30.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def make_app(services: Services) -> web.Application:
    """All calls of `docs/protocol.md`. Whatever begins with /v1/ needs a device, but for those that are listed so."""
    app = web.Application(middlewares=[answer_errors], client_max_size=MAX_REQUEST_SIZE_BYTES)
    app[SERVICES] = services
    app.add_routes(
        [
            web.get("/health/live", health.live),
            web.get("/health/ready", in_time(health.ready)),
            web.get("/metrics", health.metrics),
            web.get("/v1/ca", health.get_ca),
            web.post("/v1/link", in_time(linking.link)),
            web.post("/v1/session", in_time(for_device(linking.open_session))),
            web.get("/v1/heads", in_time(for_device(workspaces.list_heads))),
            web.get("/v1/workspaces", in_time(for_device(workspaces.list_workspaces))),
            web.post("/v1/workspaces", in_time(for_device(workspaces.make_workspace))),
            web.get("/v1/workspaces/{id}/changes", for_device(reading.stream_changes), allow_head=False),
            web.get("/v1/workspaces/{id}/snapshot", for_device(reading.stream_snapshot), allow_head=False),
            web.post("/v1/workspaces/{id}/versions", for_device(reading.stream_versions)),
            web.get("/v1/workspaces/{id}/deleted", for_device(reading.stream_deleted)),
            web.get("/v1/workspaces/{id}/holds", in_time(for_device(holds.list_holds))),
            web.post("/v1/workspaces/{id}/holds/{hold_id}/accept", in_time(for_device(holds.accept_hold))),
            web.post("/v1/workspaces/{id}/holds/{hold_id}/undo", in_time(for_device(holds.undo_hold))),
            web.delete("/v1/workspaces/{id}/holds/{hold_id}", in_time(for_device(holds.release_hold))),
            web.put("/v1/bodies/{sha}", for_device(bodies.stage_body)),
            web.get("/v1/devices", in_time(for_device(devices.list_devices))),
            web.delete("/v1/devices/{id}", in_time(for_device(devices.revoke_device))),
        ]
    )
    return app


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Connect to PostgreSQL, and have the broker's clients ready; the broker itself may be down.

    Raises:
        Misconfigured: A setting cannot be used, or the schema is not this program's.
        Unavailable: PostgreSQL cannot be reached.
    """
    address = BrokerAddress.parse(settings.amqp_url)
    pool = await database.connect(
        settings.dsn, max_size=POOL_SIZE, settings={"application_name": "hutch metadata server"}
    )
    try:
        async with (
            Management(settings.management_url, settings.vhost) as management,
            Publisher(address, user_id=address.user, idle_close_s=PUBLISHER_IDLE_CLOSE_S) as publisher,
        ):
            registry, metrics = Registry(pool), Metrics()
            yield Services(
                settings=settings,
                pool=pool,
                registry=registry,
                catch_up=CatchUp(pool),
                follower=Follower(
                    registry,
                    management,
                    on_repaired=metrics.repairs.inc,
                    tell=partial(tell_membership, publisher),
                ),
                publisher=publisher,
                metrics=metrics,
            )
    finally:
        await database.close(pool)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop`; then take no more, finish what is in hand, and let go of everything.

    Raises:
        Misconfigured: A setting cannot be used. Unavailable: PostgreSQL does not answer at the start.
    """
    tls = _tls_context(settings.tls)
    async with open_services(settings) as services:
        runner = web.AppRunner(
            make_app(services), access_log=None, shutdown_timeout=CANCEL_TIMEOUT_S, auto_decompress=False
        )
        try:
            await _listen_on(runner, settings, tls)
            log.info("metadata_server.started", host=settings.host, port=settings.port, tls=tls is not None)
            async with _background(services):
                await stop.wait()
                services.stopping.set()
                for site in list(runner.sites):
                    await site.stop()
                await services.in_hand.wait_empty(STOP_TIMEOUT_S)
        finally:
            await runner.cleanup()
    log.info("metadata_server.stopped")


@asynccontextmanager
async def _background(services: Services) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(services.follower.run(), name="broker follower"),
            group.create_task(keep_house(services.registry, services.metrics), name="housekeeping"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _listen_on(runner: web.AppRunner, settings: Settings, tls: ssl.SSLContext | None) -> None:
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port, ssl_context=tls).start()
    except OSError as error:
        raise Misconfigured(f"HUTCH_METADATA_LISTEN: cannot listen there: {error.strerror}") from error


def _tls_context(files: tuple[Path, Path] | None) -> ssl.SSLContext | None:
    if files is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(*files)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(f"HUTCH_METADATA_TLS_CERT and _TLS_KEY cannot be used: {error}") from error
    return context

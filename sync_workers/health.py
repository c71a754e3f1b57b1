"""The small HTTP face of a worker: `/metrics`, `/health/live`, `/health/ready`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from broker.errors import Misconfigured
from sync_workers.metrics import Metrics
from sync_workers.worker import Worker


@asynccontextmanager
async def serve_health(worker: Worker, metrics: Metrics, host: str, port: int) -> AsyncIterator[None]:
    """Answer while the block lasts. Raises `Misconfigured` when the address cannot be listened on."""

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def ready(_: web.Request) -> web.Response:
        status = 200 if worker.ready else 503
        return web.json_response({"status": "ready" if worker.ready else "waiting"}, status=status)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application()
    app.add_routes(
        [
            web.get("/health/live", live),
            web.get("/health/ready", ready),
            web.get("/metrics", show_metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Misconfigured(f"HUTCH_WORKERS_METRICS_LISTEN: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()

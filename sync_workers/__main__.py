"""Run a sync worker: settings from the environment, logs, work until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import signal
import sys

import structlog

from broker.connection import Consumer, Publisher
from broker.errors import HutchError
from broker.topology import REQUESTS
from metadata import database
from metadata.store import COMMIT_SETTINGS, Store
from sync_workers.health import serve_health
from sync_workers.metrics import Metrics
from sync_workers.settings import Settings, read_settings
from sync_workers.worker import Worker

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def configure_logs() -> None:
    """JSON lines on stderr; for people, when stderr is a terminal."""
    on_terminal = sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def work(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop`. Raises `HutchError` when it cannot begin, or the request queue cannot be consumed."""
    pool = await database.connect(
        settings.postgres_dsn,
        max_size=2,
        settings={**COMMIT_SETTINGS, "application_name": "hutch sync worker"},
    )
    metrics = Metrics()
    try:
        async with Publisher(settings.broker, user_id=settings.broker.user) as publisher:
            worker = Worker(
                consumer=Consumer(settings.broker, REQUESTS, prefetch=settings.prefetch),
                publisher=publisher,
                store=Store(pool, settings.name, settings.guard),
                metrics=metrics,
                prefetch=settings.prefetch,
                relay_user=settings.relay_user,
            )
            async with serve_health(worker, metrics, settings.listen_host, settings.listen_port):
                log.info("worker.started", name=settings.name, prefetch=settings.prefetch)
                await worker.run(stop)
    finally:
        await database.close(pool)
    log.info("worker.stopped", name=settings.name)


async def _main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(read_settings(os.environ), stop)


def main() -> int:
    """Run it; the exit code is 0 after a clean stop, else that of the error."""
    configure_logs()
    try:
        asyncio.run(_main())
    except HutchError as error:
        log.error("worker.failed", code=error.code, error=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

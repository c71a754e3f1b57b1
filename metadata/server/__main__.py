"""Run the metadata server: settings from the environment, logs, HTTP until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import signal
import sys

import structlog

from broker.errors import HutchError
from metadata.server.app import serve
from metadata.server.settings import read_settings

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
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def _main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(read_settings(os.environ), stop)


def main() -> int:
    """Run it; the exit code is 0 after a clean stop, else that of the error."""
    configure_logs()
    try:
        asyncio.run(_main())
    except HutchError as error:
        log.error("metadata_server.failed", code=error.code, error=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run the block gateway: settings from the environment, the store, the database, HTTP, until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import signal
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from block_gateway.app import Gateway
from block_gateway.stores.contract import Store
from block_gateway.stores.local import LocalStore
from block_gateway.stores.s3 import Bucket, S3Store
from broker.errors import HutchError, Misconfigured
from metadata import database

_SHUTDOWN_TIMEOUT_S: Final = 15.0
_ABANDON_TIMEOUT_S: Final = 1.0
_READ_BUFFER_SIZE_BYTES: Final = (
    256 * 1024
)  # fewer wake-ups a megabyte; each upload may hold twice this unread

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the gateway is told. `tls` is certificate and key; None: plain HTTP, for loopback or behind a proxy."""

    dsn: str = field(repr=False)
    host: str
    port: int
    store: Path | Bucket
    tls: tuple[Path, Path] | None = None


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Build the settings. Raises `Misconfigured`, naming the key, for whatever is missing or malformed."""
    host, port = _listen(_required(environment, "HUTCH_GATEWAY_LISTEN"))
    return Settings(
        dsn=_required(environment, "HUTCH_POSTGRES_DSN"),
        host=host,
        port=port,
        store=_store(environment),
        tls=_tls(environment),
    )


def _required(environment: Mapping[str, str], key: str) -> str:
    value = environment.get(key, "")
    if not value:
        raise Misconfigured(f"{key} is not set")
    return value


def _listen(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise Misconfigured("HUTCH_GATEWAY_LISTEN must be ADDRESS:PORT, such as 127.0.0.1:8081")
    return host.strip("[]"), int(port)


def _store(environment: Mapping[str, str]) -> Path | Bucket:
    kind, _, place = _required(environment, "HUTCH_GATEWAY_STORE").partition(":")
    if kind == "local" and Path(place).is_absolute():
        return Path(place)
    if kind == "s3" and place:
        return Bucket(
            name=place,
            endpoint=environment.get("HUTCH_GATEWAY_S3_ENDPOINT") or None,
            access_key=_required(environment, "HUTCH_GATEWAY_S3_ACCESS_KEY"),
            secret_key=_required(environment, "HUTCH_GATEWAY_S3_SECRET_KEY"),
            region=environment.get("HUTCH_GATEWAY_S3_REGION") or "us-east-1",
        )
    raise Misconfigured("HUTCH_GATEWAY_STORE must be local:/ABSOLUTE/PATH or s3:BUCKET")


def _tls(environment: Mapping[str, str]) -> tuple[Path, Path] | None:
    certificate = environment.get("HUTCH_GATEWAY_TLS_CERT", "")
    key = environment.get("HUTCH_GATEWAY_TLS_KEY", "")
    if bool(certificate) != bool(key):
        raise Misconfigured(
            "HUTCH_GATEWAY_TLS_CERT and HUTCH_GATEWAY_TLS_KEY belong together: set both or none"
        )
    return (Path(certificate), Path(key)) if certificate else None


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop`; then take no more, finish what is in hand, and let go of everything.

    Raises:
        Misconfigured: A setting cannot be used. Unavailable: PostgreSQL or the store does not answer at the start.
    """
    tls = _tls_context(settings.tls)
    pool = await database.connect(settings.dsn, max_size=16, settings={"application_name": "hutch gateway"})
    try:
        async with _open_store(settings.store) as store:
            gateway = Gateway(pool, store)
            runner = web.AppRunner(
                gateway.app(),
                access_log=None,
                shutdown_timeout=_ABANDON_TIMEOUT_S,
                read_bufsize=_READ_BUFFER_SIZE_BYTES,
                auto_decompress=False,  # chunks bring their own compression, which is bounded
            )
            try:
                site = await _listen_on(runner, settings, tls)
                _log.info("gateway.started", host=settings.host, port=settings.port, tls=tls is not None)
                await stop.wait()
                await site.stop()
                await gateway.stop(_SHUTDOWN_TIMEOUT_S)
            finally:
                await runner.cleanup()
    finally:
        await database.close(pool)
    _log.info("gateway.stopped")


async def _listen_on(runner: web.AppRunner, settings: Settings, tls: ssl.SSLContext | None) -> web.TCPSite:
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.port, ssl_context=tls)
    try:
        await site.start()
    except OSError as error:
        raise Misconfigured(f"HUTCH_GATEWAY_LISTEN: cannot listen there: {error.strerror}") from error
    return site


def _open_store(where: Path | Bucket) -> Store:
    return LocalStore(where) if isinstance(where, Path) else S3Store(where)


def _tls_context(files: tuple[Path, Path] | None) -> ssl.SSLContext | None:
    if files is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(*files)
    except OSError as error:  # ssl.SSLError is an OSError
        raise Misconfigured(f"HUTCH_GATEWAY_TLS_CERT and _TLS_KEY cannot be used: {error}") from error
    return context


def _configure_logs() -> None:
    on_terminal = sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if on_terminal else [structlog.processors.format_exc_info]),
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
    _configure_logs()
    try:
        asyncio.run(_main())
    except HutchError as error:
        _log.error("gateway.failed", code=error.code, error=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The door to PostgreSQL: a checked pool, and the driver's errors said in our words."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import asyncpg

from broker.errors import Misconfigured, Unavailable
from metadata.migrate import newest_version

CONNECT_TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 60.0

_TRANSIENT: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, starting up, cancelled
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.TransactionRollbackError,  # deadlock, serialisation
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a primary that was demoted
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError is one
)


@contextmanager
def translate() -> Iterator[None]:
    """Raise `Unavailable` for whatever says that PostgreSQL cannot serve now, not that a statement is wrong.

    Errors that a statement itself caused (a constraint, a bad value) pass through unchanged.
    """
    try:
        yield
    except _TRANSIENT as error:
        raise Unavailable(f"PostgreSQL cannot serve now: {type(error).__name__}") from error
    except asyncpg.InterfaceError as error:
        # The driver uses one class for a closed connection and for a value that does not fit its column.
        if isinstance(error, ValueError):
            raise
        raise Unavailable(f"PostgreSQL's connection was lost: {error}") from error


async def connect(
    dsn: str, *, min_size: int = 1, max_size: int = 10, settings: Mapping[str, str] | None = None
) -> Any:
    """Open a pool to a database that has exactly the schema that this program was written for.

    Args:
        dsn: `postgresql://user:password@host:port/database`. It is never logged.
        min_size: Connections to hold open.
        max_size: Connections to open at most; who wants one more waits.
        settings: PostgreSQL's own settings for each connection, over the defaults made here.

    Returns:
        An `asyncpg.Pool`. The caller closes it. UUIDs come as subclasses of `uuid.UUID`.

    Raises:
        Misconfigured: The dsn is malformed, or the schema is older or newer than this program.
        Unavailable: The server cannot be reached.
    """
    server_settings = {"jit": "off", "application_name": "hutch", **(settings or {})}
    with translate():
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=min_size,
                max_size=max_size,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings=server_settings,
            )
        except (ValueError, asyncpg.InvalidCatalogNameError) as error:
            raise Misconfigured(f"HUTCH_POSTGRES_DSN names no database: {type(error).__name__}") from error
    try:
        await check_version(pool)
    except BaseException:
        await close(pool)
        raise
    return pool


async def check_version(pool: Any) -> None:
    """Raise `Misconfigured` unless the schema is the one that this program was written for."""
    with translate():
        exists = await pool.fetchval("SELECT to_regclass('schema_version') IS NOT NULL")
        found = await pool.fetchval("SELECT max(version) FROM schema_version") if exists else None
    wanted = newest_version()
    if found is None or found < wanted:
        raise Misconfigured(
            f"The database has schema {found or 0}, not {wanted}: run `python -m metadata.migrate`"
        )
    if found > wanted:
        raise Misconfigured(
            f"The database has schema {found}, newer than this program's {wanted}: upgrade it"
        )


async def close(pool: Any, timeout_s: float = 5.0) -> None:
    """Close a pool politely; what is still busy after `timeout_s` is cut off."""
    try:
        async with asyncio.timeout(timeout_s):
            await pool.close()
    except TimeoutError:
        pool.terminate()

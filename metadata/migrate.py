"""Brings a database to the newest schema: `python -m metadata.migrate`, with HUTCH_POSTGRES_DSN set.

Migrations are `NNNN_pre_…` (applied before the new code is everywhere) or `NNNN_post_…` (after), plain SQL.
"""

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import asyncpg

from broker.errors import HutchError, Misconfigured, Unavailable

_LOCK: Final = 0x48555443  # "HUTC": the advisory lock under which schemas change
_LOCK_TIMEOUT_S: Final = 120.0
_FILE: Final = re.compile(r"^(\d{4})_(pre|post)_[a-z0-9_]+\.sql$")


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One step of the schema: its number, and the SQL that takes it."""

    version: int
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, in order. Raises ValueError when their numbers are not 1, 2, 3 …"""
    found: list[Migration] = []
    for file in files("metadata").joinpath("sql", "migrations").iterdir():
        match = _FILE.match(file.name)
        if match:
            found.append(Migration(version=int(match[1]), sql=file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("the migrations' numbers have a gap or a double")
    return tuple(found)


def newest_version() -> int:
    """The schema version that this program was written for."""
    return migrations()[-1].version


async def migrate(dsn: str) -> list[int]:
    """Apply what is missing, each migration in a transaction of its own. May run in several processes at once.

    Returns:
        The versions that were applied now; empty when the schema was the newest.

    Raises:
        Misconfigured: The dsn is malformed, or the database is newer than this program.
        Unavailable: The server cannot be reached.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
    except ValueError as error:
        raise Misconfigured("HUTCH_POSTGRES_DSN is not a PostgreSQL address") from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(f"PostgreSQL cannot be reached: {type(error).__name__}: {error}") from error
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=_LOCK_TIMEOUT_S)
        return await _apply_missing(connection)
    finally:
        await connection.close(timeout=5)


async def _apply_missing(connection: Any) -> list[int]:
    found = await _version(connection)
    if found > newest_version():
        raise Misconfigured(
            f"The database has schema {found}, newer than this program's {newest_version()}: upgrade it"
        )
    missing = [migration for migration in migrations() if migration.version > found]
    for migration in missing:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", migration.version)
    return [migration.version for migration in missing]


async def _version(connection: Any) -> int:
    if not await connection.fetchval("SELECT to_regclass('schema_version') IS NOT NULL"):
        return 0
    version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_version")
    return version


def main() -> int:
    """Run from the command line. Says on stderr what it did; ends with the error's exit code."""
    dsn = os.environ.get("HUTCH_POSTGRES_DSN")
    try:
        if not dsn:
            raise Misconfigured("HUTCH_POSTGRES_DSN is not set")
        applied = asyncio.run(migrate(dsn))
    except HutchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stderr.write(f"applied migrations: {', '.join(map(str, applied)) or 'none were missing'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`hutch-admin`: what an operator does to accounts and devices, and to the database's schema."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import click
from yarl import URL

from broker.errors import HutchError, Misconfigured, NotFound, Refused, Unavailable
from broker.management import Management

try:
    from metadata import database, migrate
    from metadata.accounts import Passwords, email_problem, fold_email, password_problem
    from metadata.registry import Registry
    from metadata.server.follower import Follower
    from metadata.server.settings import vhost_of
except ImportError as missing:  # a device has the program as well: they come in one wheel
    click.echo(
        f"hutch-admin: this is a device's installation, without what a server needs ({missing}): run it where the"
        " service runs, or install hutch[server]",
        err=True,
    )
    sys.exit(78)

EXIT_CODES = {"user_exists": 17, "bad_input": 16, "not_found": 13}

HELP = """Accounts and devices of a Hutch service, and its database's schema.

\b
Settings: with HUTCH_DATA=DIR those of DIR/admin.json, which `deploy/local` writes; else HUTCH_POSTGRES_DSN, with
HUTCH_AMQP_URL and HUTCH_MANAGEMENT_URL to tell the broker at once; else those of ./.hutch-data/admin.json.

\b
Exit codes: 0 done, 2 wrong usage, 10 a server cannot be reached (try again), 13 no such user or device,
16 an address, password or quota that will not do, 17 there is such an account already, 78 wrong settings.
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the service keeps its accounts. Broker addresses None: not known here, and then it is not told.

    `stack` is the data directory of `deploy/local` that the database belongs to; None: it is run by other means.
    """

    dsn: str = field(repr=False)
    amqp_url: str | None = field(default=None, repr=False)
    management_url: str | None = field(default=None, repr=False)
    stack: Path | None = None


def read_settings() -> Settings:
    """Build the settings from the environment and, where that is silent, from the local stack's own file.

    Raises:
        Misconfigured: Neither names a database, or the file cannot be read.
    """
    file = Path(os.environ.get("HUTCH_DATA") or ".hutch-data") / "admin.json"
    # HUTCH_DATA says which stack is meant; a DSN that stands beside it in a shell must not lead elsewhere.
    known = (
        _read_file(file) if os.environ.get("HUTCH_DATA") or not os.environ.get("HUTCH_POSTGRES_DSN") else {}
    )
    keys = ("HUTCH_POSTGRES_DSN", "HUTCH_AMQP_URL", "HUTCH_MANAGEMENT_URL")
    dsn, amqp_url, management_url = (known.get(key) or os.environ.get(key) or None for key in keys)
    if dsn is None:
        raise Misconfigured(f"HUTCH_POSTGRES_DSN is neither set nor in {file}")
    stack = file.parent if "HUTCH_POSTGRES_DSN" in known else None
    return Settings(dsn=dsn, amqp_url=amqp_url, management_url=management_url, stack=stack)


def _read_file(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise Misconfigured(
            f"there is no {file}: start the service with `deploy/local up`, or set HUTCH_DATA or HUTCH_POSTGRES_DSN"
        ) from None
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{file} cannot be read: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise Misconfigured(f"{file} is not what `deploy/local` writes")
    return {key: value for key, value in content.items() if isinstance(value, str)}


def _runs(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a click command of a coroutine: its errors become one line on stderr, and an exit code."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            asyncio.run(command(*args, **kwargs))
        except HutchError as error:
            _fail(error)

    return run


def _fail(error: HutchError) -> NoReturn:
    click.echo(f"hutch-admin: {error}", err=True)
    sys.exit(EXIT_CODES.get(error.code, error.exit_code))


@contextmanager
def _names_the_stack(settings: Settings) -> Iterator[None]:
    """Say how a stack of `deploy/local` is started, when its database does not answer."""
    try:
        yield
    except Unavailable as error:
        if settings.stack is None:
            raise
        raise Unavailable(
            f"PostgreSQL of {settings.stack} does not answer: start the stack with `deploy/local up`"
        ) from error


@asynccontextmanager
async def _registry(settings: Settings) -> AsyncIterator[Registry]:
    with _names_the_stack(settings):
        pool = await database.connect(settings.dsn, max_size=3, settings={"application_name": "hutch-admin"})
    try:
        yield Registry(pool)
    finally:
        await database.close(pool)


@click.group(help=HELP)
def main() -> None:
    """The root of all commands; `HELP` is what it says of itself."""


@main.group()
def user() -> None:
    """People's accounts."""


@user.command("add")
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input's first line.")
@click.option(
    "--quota", "quota_bytes", type=click.IntRange(min=0), metavar="BYTES", help="What their files may take."
)
@_runs
async def add_user(email: str, password_stdin: bool, quota_bytes: int | None) -> None:
    """Add an account. Without --password-stdin it asks for the password."""
    folded = fold_email(email)
    if problem := email_problem(folded):
        raise Refused(problem, "bad_input")
    if quota_bytes is not None and quota_bytes >= 2**63:
        raise Refused("the quota is larger than any disk", "bad_input")
    password = await asyncio.to_thread(_read_password, password_stdin)
    if problem := password_problem(password):
        raise Refused(problem, "bad_input")
    async with _registry(read_settings()) as registry:
        await registry.add_user(folded, await Passwords().hash(password), quota_bytes)
    click.echo(f"added {folded}", err=True)


def _read_password(from_stdin: bool) -> str:
    if not from_stdin:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError("There is no terminal to ask for the password: use --password-stdin.")
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        return sys.stdin.buffer.readline(1 << 16).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise Refused("the password is not valid UTF-8", "bad_input") from None


@user.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@_runs
async def list_users(as_json: bool) -> None:
    """All accounts, by address."""
    async with _registry(read_settings()) as registry:
        users = await registry.list_users()
    if as_json:
        rows = [
            {
                "user_id": str(each.user_id),
                "email": each.email,
                "quota_bytes": each.quota_bytes,
                "used_bytes": each.used_bytes,
                "devices": each.devices,
                "created_at": each.created_at.isoformat(),
            }
            for each in users
        ]
        click.echo(json.dumps({"users": rows}))
        return
    for each in users:
        quota = "no quota" if each.quota_bytes is None else f"of {each.quota_bytes}"
        click.echo(f"{each.email}\t{each.devices} devices\t{each.used_bytes} bytes\t{quota}")


@main.group()
def device() -> None:
    """The devices that are linked to accounts."""


@device.command("list")
@click.argument("email")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@_runs
async def list_devices(email: str, as_json: bool) -> None:
    """An account's linked devices, oldest first."""
    async with _registry(read_settings()) as registry:
        account = await registry.user_by_email(fold_email(email))
        if account is None:
            raise NotFound("there is no account of that address")
        devices = await registry.list_devices(account.user_id)
    if as_json:
        rows = [
            {
                "device_id": str(each.device_id),
                "name": each.name,
                "created_at": each.created_at.isoformat(),
                "seen_at": each.seen_at.isoformat() if each.seen_at else None,
            }
            for each in devices
        ]
        click.echo(json.dumps({"devices": rows}))
        return
    for each in devices:
        seen = each.seen_at.isoformat(timespec="seconds") if each.seen_at else "never"
        click.echo(f"{each.device_id}\t{each.name}\tlast seen {seen}")


@device.command("revoke")
@click.argument("device_id", metavar="ID", type=click.UUID)
@_runs
async def revoke_device(device_id: UUID) -> None:
    """Cut a device off for good: its credential at once, and its broker connections with it."""
    settings = read_settings()
    async with _registry(settings) as registry:
        await registry.revoke_device(device_id)
        if settings.amqp_url is None or settings.management_url is None:
            click.echo("revoked; the metadata server tells the broker within a minute", err=True)
            return
        async with Management(settings.management_url, vhost_of(URL(settings.amqp_url))) as management:
            await Follower(registry, management).follow(device_id)
    click.echo("revoked", err=True)


@main.command("migrate")
@_runs
async def migrate_schema() -> None:
    """Bring the database to the newest schema."""
    settings = read_settings()
    with _names_the_stack(settings):
        applied = await migrate.migrate(settings.dsn)
    click.echo(f"applied migrations: {', '.join(map(str, applied)) or 'none were missing'}", err=True)


@main.command("restored")
@_runs
async def start_epoch() -> None:
    """Start a new epoch, after PostgreSQL was restored from a backup and before anything else is started.

    No device then takes the restored journal for the one that it followed: each compares all it has with the service,
    deletes nothing, and commits what the backup lacks. Said once too often it costs that comparison, and nothing else.
    """
    async with _registry(read_settings()) as registry:
        count = await registry.start_epoch()
    click.echo(f"a new epoch has begun for all workspaces: {count}", err=True)


if __name__ == "__main__":
    main()

"""One line on stderr that says how far long work is, while it is under way."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import click

from agent.cli.talk import size
from broker.errors import HutchError

LOOK_AGAIN_S: Final = 0.5
Status = dict[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])


def progress_option(command: Command) -> Command:
    """Give a command the option --progress."""
    return click.option(
        "--progress/--no-progress",
        default=None,
        help="Show how far it is, on stderr.  [default: on a terminal]",
    )(command)


def timeout_option(command: Command) -> Command:
    """Give a command the option --timeout."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Give up, and exit 1, after this long.  [default: wait on]",
    )(command)


@asynccontextmanager
async def showing_progress(
    read: Callable[[], Awaitable[Status | None]], wanted: bool | None
) -> AsyncIterator[None]:
    """Show what `read` tells for as long as the block runs. `wanted` None: only on a terminal."""
    terminal = sys.stderr.isatty()
    if wanted is False or (wanted is None and not terminal):
        yield
        return
    task = asyncio.create_task(_show(read, terminal), name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if terminal:
            click.echo("\r\x1b[K", err=True, nl=False)


async def _show(read: Callable[[], Awaitable[Status | None]], terminal: bool) -> None:
    shown = ""
    while True:
        try:
            status = await read()
        except HutchError:
            status = None  # the agent is busy, or about to end: what it was asked for tells which
        line = summary(status) if status else shown
        if line != shown:
            click.echo(f"\r\x1b[K{line}" if terminal else line, err=True, nl=not terminal)
            shown = line
        await asyncio.sleep(LOOK_AGAIN_S)


def summary(status: Status) -> str:
    """A status in one line."""
    up = sum(workspace["pending_up"] for workspace in status["workspaces"])
    down = sum(workspace["pending_down"] for workspace in status["workspaces"])
    sent, received = size(status["bytes_up"]), size(status["bytes_down"])
    return f"{status['state']}: {up} to send, {down} to fetch ({sent} sent, {received} received)"

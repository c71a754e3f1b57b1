"""`hutch run`: the agent, in the foreground."""

import asyncio
import signal
from typing import Final

import click

from agent.cli.context import Context, pass_context
from agent.home import Home

LEVELS: Final = ("debug", "info", "warning", "error")


@click.command("run")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="What to log, on stderr.",
)
@pass_context
def command(context: Context, log_level: str) -> None:
    """Sync for as long as this runs (Ctrl-C ends it cleanly)."""
    from agent.cli.logs import configure_logs

    context.home.linked()
    configure_logs(log_level)
    context.run(_run(context.home))


async def _run(home: Home) -> None:
    from agent.engine import Agent

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Agent(home).run(stop)

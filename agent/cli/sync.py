"""`hutch sync`: sync once, without an agent that goes on running."""

import click

from agent.cli.context import Context, pass_context
from agent.cli.progress import Status, progress_option, showing_progress, timeout_option
from agent.cli.talk import json_option
from agent.cli.wait import report, wait_synced
from agent.errors import NotRunning
from agent.home import Home


@click.command("sync")
@timeout_option
@progress_option
@json_option
@pass_context
def command(context: Context, timeout_s: float | None, progress: bool | None) -> None:
    """Sync everything once, both ways: 0 then, 1 when the time is up.

    With a running agent this is `hutch wait`.
    """
    context.home.linked()
    report(context, *context.run(_sync(context.home, timeout_s, progress)))


async def _sync(home: Home, timeout_s: float | None, progress: bool | None) -> tuple[bool, int]:
    try:
        return await wait_synced(home, timeout_s, progress, grace_s=0)
    except NotRunning:
        return await _sync_alone(home, timeout_s, progress)


async def _sync_alone(home: Home, timeout_s: float | None, progress: bool | None) -> tuple[bool, int]:
    from agent.cli.logs import configure_logs
    from agent.engine import Agent

    configure_logs("critical")  # what goes wrong ends it, and is said in one line
    agent = Agent(home)

    async def read() -> Status:
        return agent.status()

    async with showing_progress(read, progress):
        synced = await agent.sync_once(timeout_s)
    return synced, agent.left_out if synced else 0

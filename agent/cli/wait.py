"""`hutch wait`: until the running agent has everything synced."""

import asyncio
from typing import Final

import click

from agent.cli.ask import agent_status
from agent.cli.context import Context, pass_context
from agent.cli.progress import Status, progress_option, showing_progress, timeout_option
from agent.cli.talk import emit, json_option, say
from agent.control import call
from agent.errors import NotRunning
from agent.home import Home

START_GRACE_S: Final = 10.0
"""How long an agent that was only just started may take to listen."""

_LOOK_AGAIN_S: Final = 0.1
_ANSWER_GRACE_S: Final = 5.0


@click.command("wait")
@timeout_option
@progress_option
@json_option
@pass_context
def command(context: Context, timeout_s: float | None, progress: bool | None) -> None:
    """Wait until all is synced: 0 then, 1 when the time is up.

    The running agent looks at its folders afresh first, so what was written before this command is synced after it.
    """
    context.home.linked()
    report(context, *context.run(wait_synced(context.home, timeout_s, progress, grace_s=START_GRACE_S)))


def report(context: Context, synced: bool, left_out: int) -> None:
    """Say the outcome, and exit 1 when not everything is synced.

    Args:
        context: The invocation.
        synced: Whether all is, but for what was left out.
        left_out: How many entries were.
    """
    if left_out:
        entries = "1 entry was" if left_out == 1 else f"{left_out} entries were"
        say(f"{entries} left out: `hutch status` names {'it' if left_out == 1 else 'them'}")
    emit(
        context,
        {"synced": synced},
        "all is synced" if synced else "the time is up, and not everything is synced",
    )
    if not synced:
        click.get_current_context().exit(1)


async def wait_synced(
    home: Home, timeout_s: float | None, progress: bool | None, *, grace_s: float
) -> tuple[bool, int]:
    """Ask the running agent to get everything synced.

    Returns:
        Whether it is (False when the time is up), and how many entries were left out.

    Args:
        home: Whose agent.
        timeout_s: For all of it; None: for as long as the agent runs.
        progress: As the option says.
        grace_s: How long to look for an agent that has only just begun.

    Raises:
        NotRunning: When no agent answers within the grace.
    """
    clock = asyncio.get_running_loop()
    deadline = None if timeout_s is None else clock.time() + timeout_s
    status = await wait_listening(home, grace_s if timeout_s is None else min(grace_s, timeout_s))
    if status["state"] == "paused":
        say("paused: `hutch resume`")
    left = None if deadline is None else max(0.0, deadline - clock.time())
    limit = None if left is None else left + _ANSWER_GRACE_S
    try:
        async with asyncio.timeout(limit), showing_progress(lambda: agent_status(home), progress):
            answer = await call(home.socket_path, "wait", answer_timeout_s=None, timeout_s=left)
    except TimeoutError:
        return False, 0
    if not answer["synced"]:
        return False, 0
    return True, left_out_of(await agent_status(home))


def left_out_of(status: Status | None) -> int:
    """How many entries a status tells to be left out; 0 for None."""
    return sum(workspace.get("left_out", 0) for workspace in status["workspaces"]) if status else 0


async def wait_listening(home: Home, grace_s: float) -> Status:
    """The status of the running agent, once it listens. Raises `NotRunning` when it does not within the grace."""
    clock = asyncio.get_running_loop()
    end = clock.time() + grace_s
    while True:
        try:
            return await call(home.socket_path, "status")
        except NotRunning:
            if clock.time() >= end:
                raise
        await asyncio.sleep(_LOOK_AGAIN_S)

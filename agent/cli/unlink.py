"""`hutch unlink`: take this device off the account. All files stay."""

import asyncio
from pathlib import Path
from typing import Final

import click

from agent.cli.ask import tell_agent
from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option, say
from agent.errors import AlreadyRunning
from agent.home import Home
from broker.errors import Forbidden, NotFound, Unavailable

STOP_TIMEOUT_S: Final = 30.0
_LOOK_AGAIN_S: Final = 0.1


@click.command("unlink")
@click.option("--force", is_flag=True, help="Forget the account here even if the service cannot be reached.")
@json_option
@pass_context
def command(context: Context, force: bool) -> None:
    """Revoke this device and forget its account; all files stay.

    A running agent is stopped. With --force, revoke the device later from another one.
    """
    from agent.marker import remove_marker

    home = context.home
    credential = home.linked()
    context.run(_revoke(home, force))
    context.run(_stop_agent(home))
    with home.lock():
        for record in home.folders():
            remove_marker(Path(record.folder))
        home.forget()
    emit(context, {"device_id": str(credential.device_id)}, "unlinked: this device syncs nothing any more")


async def _revoke(home: Home, force: bool) -> None:
    from agent.cli.reach import reach

    try:
        async with reach(home) as service:
            await service.revoke(home.linked().device_id)
    except (Forbidden, NotFound):
        say("the service had revoked this device already")
    except Unavailable as error:
        if not force:
            raise Unavailable(
                f"{error}; `hutch unlink --force` forgets the account on this device alone"
            ) from error
        say(f"not revoked at the service ({error}): do that from another device")


async def _stop_agent(home: Home) -> None:
    """End the running agent and wait until it has let go of the home."""
    await tell_agent(home, "stop")
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            while _is_locked(home):  # noqa: ASYNC110  # it is another process that lets go
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError as error:
        raise AlreadyRunning("the agent does not end: stop it, and run `hutch unlink --force`") from error


def _is_locked(home: Home) -> bool:
    try:
        with home.lock():
            return False
    except AlreadyRunning:
        return True

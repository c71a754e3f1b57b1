"""`hutch unlink`: take this device off the account. All files stay."""

import asyncio
from pathlib import Path
from typing import Final
from uuid import UUID

import click

from agent.cli.ask import tell_agent
from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option, printable, say
from agent.errors import AlreadyRunning
from agent.home import FolderRecord, Home
from broker.errors import Corrupt, Forbidden, NotFound, Unavailable

STOP_TIMEOUT_S: Final = 30.0
_LOOK_AGAIN_S: Final = 0.1


@click.command("unlink")
@click.option("--force", is_flag=True, help="Forget the account here even if the service cannot be reached.")
@json_option
@pass_context
def command(context: Context, force: bool) -> None:
    """Revoke this device and forget its account; all files stay.

    A running agent is stopped. What --force leaves at the service, its operator takes off (`hutch-admin device revoke`).
    """
    home = context.home
    device_id = _linked_device(home, force)
    if device_id is not None:
        context.run(_revoke(home, device_id, force))
    context.run(_stop_agent(home))
    with home.lock():
        for record in _folders(home, force):
            _unmark(record)
        home.forget()
    told = None if device_id is None else str(device_id)
    emit(context, {"device_id": told}, "unlinked: this device syncs nothing any more")


def _linked_device(home: Home, force: bool) -> UUID | None:
    """Which device this is; None where that cannot be read any more. Raises `Corrupt` then, unless forced."""
    try:
        return home.linked().device_id
    except Corrupt:
        if not force:
            raise
        say(
            f"which device this was cannot be read ({home.config_path} is damaged): the service's operator can revoke"
            " it (`hutch-admin device list EMAIL`, `hutch-admin device revoke ID`)"
        )
        return None


def _folders(home: Home, force: bool) -> list[FolderRecord]:
    try:
        return home.folders()
    except Corrupt:
        if not force:
            raise
        say(
            f"which folders were synced cannot be read ({home.folders_path} is damaged): each keeps Hutch's mark"
        )
        return []


def _unmark(record: FolderRecord) -> None:
    from agent.marker import remove_marker

    try:
        remove_marker(Path(record.folder))
    except OSError as error:
        say(f"{printable(record.folder)} keeps Hutch's mark ({error.strerror})")


async def _revoke(home: Home, device_id: UUID, force: bool) -> None:
    from agent.cli.reach import reach

    try:
        async with reach(home) as service:
            await service.revoke(device_id)
    except (Forbidden, NotFound):
        say("the service had revoked this device already")
    except Unavailable as error:
        if not force:
            raise Unavailable(
                f"{error}; `hutch unlink --force` forgets the account on this device alone"
            ) from error
        say(
            f"not revoked at the service ({error}): its operator can do that, with `hutch-admin device revoke {device_id}`"
        )


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

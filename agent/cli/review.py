"""`hutch review`: what the guard holds of this account's devices, and what a person says of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click
import msgspec

from agent.cli.context import Context, pass_context
from agent.cli.remove import find_record
from agent.cli.talk import ask_password, emit, json_option, printable, say
from agent.errors import WrongPassword
from broker.errors import Forbidden

if TYPE_CHECKING:
    from agent.service import HoldInfo, Service

CHOICES: Final = ("accept", "undo", "later")


@click.command("review")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--accept", is_flag=True, help="Let it be deleted and rewritten everywhere.")
@click.option("--undo", is_flag=True, help="Bring it back on the device that did it; nothing is lost there.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin (one line).")
@json_option
@pass_context
def command(context: Context, folder: Path | None, accept: bool, undo: bool, password_stdin: bool) -> None:
    """Look at what waits because a device would delete or rewrite much, and accept or undo it.

    Shows what is held of all your devices (with FOLDER: in that one's workspace). What another device did is accepted
    here as it is; for what this device did, the account's password is asked for.
    """
    if accept and undo:
        raise click.UsageError("--accept and --undo exclude each other.")
    context.home.linked()
    workspace_id = None if folder is None else find_record(context.home, folder).workspace_id
    review = Review(context)
    found = context.run(review.find(workspace_id))
    waiting = [(name, hold) for name, hold in found if hold.verdict == "held"]
    asks = context.interactive and not (accept or undo or context.json or password_stdin)
    if not (accept or undo) and not (asks and waiting):
        emit(context, _data(found, {}), _describe_all(found))
        return
    choices = {}
    for name, hold in waiting:
        if asks:
            say(describe(name, hold))
            choices[hold.hold_id] = click.prompt(
                "What now", type=click.Choice(CHOICES), default="later", err=True
            )
        else:
            choices[hold.hold_id] = "accept" if accept else "undo"
    decided = [hold for _, hold in waiting if choices[hold.hold_id] != "later"]
    password = None
    if any(hold.current and choices[hold.hold_id] == "accept" for hold in decided):
        password = ask_password(context, password_stdin)
    now = context.run(review.decide(decided, choices, password))
    verdicts = {hold.hold_id: hold.verdict for hold in now}
    emit(context, _data(found, verdicts), "\n".join(map(_told, now)) or "nothing was decided")


class Review:
    """What is asked of the service, and told to it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def find(self, workspace_id: UUID | None) -> "list[tuple[str, HoldInfo]]":
        """All holds, or those of one workspace, each with its workspace's name."""
        from agent.cli.reach import reach

        async with reach(self._context.home) as service:
            return [
                (workspace.name, hold)
                for workspace in await service.workspaces()
                if workspace_id in (None, workspace.workspace_id)
                for hold in await service.holds(workspace.workspace_id)
            ]

    async def decide(
        self, holds: "Sequence[HoldInfo]", choices: dict[UUID, str], password: str | None
    ) -> "list[HoldInfo]":
        """Say what the person has said. Raises `NotFound` for one that is not as it was shown any more."""
        from agent.cli.reach import reach

        async with reach(self._context.home) as service:
            return [await _decide(service, hold, choices[hold.hold_id], password) for hold in holds]


async def _decide(service: "Service", hold: "HoldInfo", choice: str, password: str | None) -> "HoldInfo":
    if choice == "undo":
        return await service.undo_hold(hold.workspace_id, hold.hold_id)
    try:
        return await service.accept_hold(hold.workspace_id, hold.hold_id, password if hold.current else None)
    except Forbidden as error:
        if error.code == WrongPassword.code:
            raise WrongPassword("wrong password: nothing was accepted") from error
        raise


def _data(found: "Sequence[tuple[str, HoldInfo]]", verdicts: dict[UUID, str]) -> dict[str, Any]:
    return {
        "holds": [
            {
                **msgspec.to_builtins(hold),
                "workspace": name,
                "verdict": verdicts.get(hold.hold_id, hold.verdict),
            }
            for name, hold in found
        ]
    }


def _describe_all(found: "Sequence[tuple[str, HoldInfo]]") -> str:
    if not found:
        return "nothing waits for you"
    parts = [describe(name, hold) for name, hold in found]
    if any(hold.verdict == "held" for _, hold in found):
        parts.append(
            "All other devices keep their files. `hutch review --accept` lets this happen there too;"
            "\n`hutch review --undo` brings the files back on the device that did it, and keeps what was written beside them."
        )
    return "\n\n".join(parts)


def describe(name: str, hold: "HoldInfo") -> str:
    """A held commit, for people."""
    whose = f"{hold.device_name} (this device)" if hold.current else hold.device_name
    what = f"{hold.deleted} deletions and {hold.rewritten} changes"
    if hold.to_follow:
        what += f", with {hold.to_follow} more to follow"
    if hold.recent:
        what += f", after {hold.recent} lately"
    lines = [printable(f"{name}: {whose} would make {what}; {_STATES[hold.verdict]}")]
    for paths, count, word in (
        (hold.deleted_paths, hold.deleted, "delete"),
        (hold.rewritten_paths, hold.rewritten, "change "),
    ):
        lines += [f"  {word} {printable(path)}" for path in paths]
        if count > len(paths):
            lines.append(f"  {word} … {count} in all")
    return "\n".join(lines)


_STATES: Final = {
    "held": "it waits for you",
    "accepted": "it was accepted, and the device has yet to do it",
    "undone": "it is to be undone, and the device has yet to do it",
}


def _told(hold: "HoldInfo") -> str:
    done = "accepted: it happens everywhere" if hold.verdict == "accepted" else "undone: the files come back"
    return printable(f"{hold.device_name}: {done}, once that device is connected")

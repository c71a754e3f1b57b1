"""`hutch plan`: what would be done, and why, without doing it."""

from pathlib import Path
from typing import Any, Final

import click

from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option, printable, size
from agent.cli.where import ask, chosen_folders
from agent.home import FolderRecord, Home
from agent.scan import RootGone
from broker.errors import HutchError

FEW: Final = 20
"""How many changes of a direction a person is shown without --all."""

_PAGE: Final = 10_000
_SIGNS: Final = {"up": "↑", "down": "↓", "waits": "…"}


@click.command("plan")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--all", "show_all", is_flag=True, help=f"List every change, not the first {FEW} of a direction."
)
@json_option
@pass_context
def command(context: Context, folder: Path | None, show_all: bool) -> None:
    """Show what would be sent and fetched, and why. Nothing is done.

    All synced folders, or FOLDER alone. The counts are always of all changes.
    """
    home = context.home
    home.linked()
    records = chosen_folders(home, folder)
    plans = context.run(_plans(home, records, show_all))
    text = "\n\n".join(describe(plan) for plan in plans)
    emit(context, {"workspaces": plans}, text or "no folder is synced yet: hutch add FOLDER")


async def _plans(home: Home, records: list[FolderRecord], show_all: bool) -> list[dict[str, Any]]:
    return [await _plan(home, record, show_all) for record in records]


async def _plan(home: Home, record: FolderRecord, show_all: bool) -> dict[str, Any]:
    """One folder's plan: of what is listed whole, page by page."""
    try:
        plan = await ask(home, "plan", record.folder, limit=_PAGE if show_all else FEW)
        while show_all and len(plan["changes"]) < _total(plan):
            asked = max(sum(c["direction"] == way for c in plan["changes"]) for way in _SIGNS)
            more = await ask(home, "plan", record.folder, offset=asked, limit=_PAGE)
            if not more["changes"]:
                break
            plan = {**more, "changes": [*plan["changes"], *more["changes"]]}
    except HutchError as error:
        if error.code != RootGone.code:
            raise
        return _gone(record, str(error))
    return plan


def _total(plan: dict[str, Any]) -> int:
    return sum(int(plan[way]["count"]) for way in _SIGNS)


def _gone(record: FolderRecord, message: str) -> dict[str, Any]:
    """A folder that is not in its place: nothing is done there, and the others are not hidden by it."""
    nothing = {"count": 0, "size_bytes": 0}
    return {
        "name": record.name,
        "workspace_id": str(record.workspace_id),
        "folder": record.folder,
        "up": nothing,
        "down": nothing,
        "waits": {"count": 0},
        "behind": 0,
        "notes": [message],
        "changes": [],
    }


def describe(plan: dict[str, Any]) -> str:
    """A folder's plan, for people."""
    lines = [f"{printable(plan['name'])}: {_counts(plan)}", f"  {printable(plan['folder'])}"]
    lines.extend(f"  ! {printable(note)}" for note in plan["notes"])
    for way in _SIGNS:
        changes = [change for change in plan["changes"] if change["direction"] == way]
        lines.extend(f"  {_line(change)}" for change in changes)
        left = int(plan[way]["count"]) - len(changes)
        if left > 0:
            lines.append(f"  {_SIGNS[way]} and {left} more (--all lists them)")
    return "\n".join(lines)


def _counts(plan: dict[str, Any]) -> str:
    parts = []
    for way, words in (("up", "to send"), ("down", "to fetch")):
        count, size_bytes = plan[way]["count"], plan[way]["size_bytes"]
        if count:
            parts.append(f"{count} {words}" + (f" ({size(size_bytes)})" if size_bytes else ""))
    if plan["waits"]["count"]:
        parts.append(f"{plan['waits']['count']} waiting")
    if plan["behind"]:
        parts.append(f"{plan['behind']} commits behind")
    return ", ".join(parts) or "nothing to do"


def _line(change: dict[str, Any]) -> str:
    where = change["path"]
    if change["previous"]:
        where = f"{change['previous']} → {where}"
    how_much = (
        f" ({size(change['size_bytes'])})" if change["size_bytes"] and change["change"] != "deleted" else ""
    )
    return printable(
        f"{_SIGNS[change['direction']]} {change['change']:<10} {where}{how_much}: {change['why']}"
    )

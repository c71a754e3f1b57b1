"""`hutch explain`: what one path is on this device, and what it waits for, in words."""

from pathlib import Path
from typing import Any

import click

from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option, printable
from agent.cli.where import ask, locate
from broker.model import name_problem


@click.command("explain")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
@pass_context
def command(context: Context, path: Path) -> None:
    """Say in words what PATH is on this device: synced or not, why, and what it waits for.

    PATH may be gone by now. Outside of all synced folders it is refused (23).
    """
    home = context.home
    home.linked()
    record, inside = locate(home, path)
    wrong = next((problem for name in inside.split("/") if (problem := _unspeakable(name))), None)
    told: dict[str, Any]
    if wrong is not None:  # JSON has no word for it
        told = {
            "folder": record.folder,
            "name": record.name,
            "path": printable(inside),
            "state": "bad_name",
            "sentences": [f"Not synced: {wrong}, so no device may have it."],
            "version": None,
            "agreed": None,
            "rule": None,
            "own_name": None,
            "waits_for": [],
            "version_at": None,
            "agreed_at": None,
        }
    else:
        told = context.run(ask(home, "explain", record.folder, inside=inside))
    lines = [told["path"] or told["folder"], *(f"  {sentence}" for sentence in told["sentences"])]
    emit(context, told, "\n".join(printable(str(line)) for line in lines))


def _unspeakable(name: str) -> str | None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return name_problem(name)
    return None

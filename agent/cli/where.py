"""Which synced folder a person means, and where in it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.control import call
from agent.errors import NotRunning, WrongFolder
from agent.home import FolderRecord, Home
from broker.errors import NotFound


def chosen_folders(home: Home, folder: Path | None) -> list[FolderRecord]:
    """The folder that a person names, or all. Raises `NotFound` when that one is not synced."""
    records = home.folders()
    if folder is None:
        return records
    path = str(folder.resolve())
    for record in records:
        if record.folder == path:
            return [record]
    raise NotFound(f"{path} is not synced: `hutch list` shows what is")


def locate(home: Home, path: Path) -> tuple[FolderRecord, str]:
    """The folder that a path lies in, and the path in it. Nothing needs to be there (any more).

    A symbolic link within the folder is a thing of its own: only on the way to the folder are links followed.

    Raises:
        WrongFolder: The path lies in no synced folder.
    """
    lexical = Path(os.path.abspath(path))
    records = home.folders()
    found = _locate(records, lexical) or _locate(records, lexical.parent.resolve() / lexical.name)
    if found is None:
        raise WrongFolder(f"{lexical} is in no synced folder: `hutch list` shows which there are")
    return found


def _locate(records: Sequence[FolderRecord], path: Path) -> tuple[FolderRecord, str] | None:
    folders = {record.folder: record for record in records}
    for above in (path, *path.parents):
        record = folders.get(str(above)) or folders.get(str(above.resolve()))
        if record is not None:
            inside = path.relative_to(above).as_posix()
            return record, "" if inside == "." else inside
    return None


async def ask(home: Home, command: str, folder: str, **arguments: Any) -> dict[str, Any]:
    """Ask the running agent about a folder; where none runs, what the last one left."""
    try:
        return await call(home.socket_path, command, folder=folder, **arguments)
    except NotRunning:
        from agent.stored import ask_stored

        return await ask_stored(home, command, folder, **arguments)

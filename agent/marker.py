"""The mark that a synced folder bears: `.hutch/marker.json` says whose it is.

It tells a folder that is synced already from one that is not, an empty mount point from the folder that should be
there, and (by `generation`) a local database that was rolled back from one that goes on.
"""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import msgspec

from agent.durable import write_file
from broker.errors import Corrupt
from broker.model import RESERVED_NAME

MARKER: Final = "marker.json"


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Whose folder this is.

    Attributes:
        workspace_id: What the folder is synced with.
        device_id: The linked device (one a HUTCH_HOME) that syncs it.
        generation: Grows with each start of the agent's database; the database holds the same number, or the next
            one when the agent died between writing the two.
    """

    workspace_id: UUID
    device_id: UUID
    generation: Annotated[int, msgspec.Meta(ge=0)] = 0


def read_marker(folder: Path) -> Marker | None:
    """The mark of a folder; None when it has none.

    Raises:
        Corrupt: When there is one that cannot be understood.
    """
    path = folder / RESERVED_NAME / MARKER
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return msgspec.json.decode(data, type=Marker)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{path} is damaged: {error}") from error


def write_marker(folder: Path, marker: Marker) -> None:
    """Mark a folder, durably. The folder must exist. Blocks."""
    own = folder / RESERVED_NAME
    own.mkdir(mode=0o700, exist_ok=True)
    write_file(own / MARKER, msgspec.json.encode(marker))


def remove_marker(folder: Path) -> bool:
    """Take the mark off, and `.hutch/` with it when nothing else is in there.

    Returns:
        False when `.hutch/` had to stay: it holds content that the agent kept for somebody.
    """
    own = folder / RESERVED_NAME
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (own / MARKER).unlink()
    _remove_empty(own)
    return not own.exists()


def _remove_empty(directory: Path) -> None:
    """Empty directories go, from the bottom up; a file is never touched."""
    for path, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()

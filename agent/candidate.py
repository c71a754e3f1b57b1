"""Which directories may become synced folders, and which never."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from agent.errors import FolderLinked, WrongFolder
from agent.home import FolderRecord
from agent.marker import Marker, read_marker
from broker.errors import Corrupt
from broker.model import RESERVED_NAME


def check_folder(
    folder: Path, *, person: Path, home: Path, records: Sequence[FolderRecord], device_id: UUID, adopt: bool
) -> Path:
    """See whether a directory may be synced, and return its real path. It need not exist yet. Blocks.

    Args:
        folder: As the person wrote it.
        person: The person's home directory: too wide to be synced, as is all around it.
        home: HUTCH_HOME, which must not be synced itself.
        records: What is synced already.
        device_id: This device.
        adopt: Take over a folder that bears another device's mark.

    Raises:
        WrongFolder: When it never may.
        FolderLinked: When it is synced already, by this device or by another.
    """
    path = _real_path(folder)
    if path.exists() and not path.is_dir():
        raise WrongFolder(f"{path} is not a folder")
    _check_reach(path, person.resolve(), home.resolve())
    _check_neighbours(path, records)
    _check_marks(path, device_id, adopt)
    return path


def make_folder(path: Path) -> list[Path]:
    """Make a folder where there is none, and see that it can be read and written. Blocks.

    Returns:
        The directories that it made, the outermost first, for `take_back`.

    Raises:
        WrongFolder: It cannot be made, or not be read and written.
    """
    made = [parent for parent in (path, *path.parents) if not parent.exists()][::-1]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        take_back(made)
        raise WrongFolder(f"{path} cannot be made: {error.strerror}") from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise WrongFolder(f"{path} cannot be read and written by you")
    return made


def take_back(made: Sequence[Path]) -> None:
    """Remove directories that `make_folder` has made, but for what holds something by now. Blocks."""
    for path in reversed(made):
        with contextlib.suppress(OSError):
            path.rmdir()


def _real_path(folder: Path) -> Path:
    try:
        path = folder.resolve()
        str(path).encode()
    except UnicodeEncodeError as error:
        raise WrongFolder("the folder's path is not valid UTF-8") from error
    except (OSError, RuntimeError) as error:
        raise WrongFolder(f"{folder} cannot be found: {error}") from error
    return path


def _check_reach(path: Path, person: Path, home: Path) -> None:
    if path == Path(path.anchor):
        raise WrongFolder("the whole file system cannot be synced: choose a folder in it")
    if person.is_relative_to(path):
        raise WrongFolder(f"{path} holds your home directory: choose a folder in it")
    if home.is_relative_to(path) or path.is_relative_to(home):
        raise WrongFolder(f"{path} and HUTCH_HOME ({home}) must not hold one another")
    if RESERVED_NAME in path.parts:
        raise WrongFolder(f"{path} lies in Hutch's own {RESERVED_NAME}")


def _check_neighbours(path: Path, records: Sequence[FolderRecord]) -> None:
    for record in records:
        other = Path(record.folder)
        if path == other:
            if _mark(path) is None:
                raise FolderLinked(
                    f"{path} is not the folder that was synced with the workspace {record.name!r}: that one is gone."
                    " Say `hutch remove` with this path first, then add it again"
                )
            raise FolderLinked(f"{path} is synced already, with the workspace {record.name!r}")
        if path.is_relative_to(other) or other.is_relative_to(path):
            raise WrongFolder(f"{path} and {other}, which is synced already, must not hold one another")


def _check_marks(path: Path, device_id: UUID, adopt: bool) -> None:
    for parent in path.parents:
        if _mark(parent) is not None:
            raise WrongFolder(f"{path} lies in {parent}, which is synced already")
    marker = _mark(path)
    if marker is not None and marker.device_id != device_id and not adopt:
        raise FolderLinked(
            f"{path} is synced by another device or HUTCH_HOME already"
            " (if that one is gone for good: `hutch add --adopt`)"
        )


def _mark(folder: Path) -> Marker | None:
    try:
        return read_marker(folder)
    except PermissionError:
        return None  # whoever keeps it from us is no agent of ours
    except Corrupt as error:
        raise FolderLinked(f"{error}; remove it if no agent syncs this folder") from error

"""Small private files that are always whole: written aside, made durable, and renamed into place."""

import os
import tempfile
from pathlib import Path

from agent.errors import DiskFull, is_disk_full


def write_file(path: Path, data: bytes) -> None:
    """Replace a file by one of mode 0600 with this content: the old one or the new one, never part of each. Blocks.

    Raises:
        DiskFull: When there is no room; the old file stands.
    """
    try:
        _write_aside_and_rename(path, data)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(
                f"the disk is full: {path.name} could not be written below {path.parent}"
            ) from error
        raise


def _write_aside_and_rename(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

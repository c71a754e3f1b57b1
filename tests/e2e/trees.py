"""What a synced folder holds, as far as it is synced: to be compared between devices, byte for byte."""

import hashlib
import os
import stat
from pathlib import Path

OWN = ".hutch"

Tree = dict[str, tuple[object, ...]]


def tree_of(folder: Path) -> Tree:
    """Everything in a folder: kind, mode, time and SHA-256 of files, targets of links, empty directories; by path."""
    found: Tree = {}
    for directory, names, files in os.walk(folder):
        here = Path(directory)
        if here == folder and OWN in names:
            names.remove(OWN)
        for name in [*names, *files]:
            path = here / name
            found[os.fspath(path.relative_to(folder))] = describe(path)
        names[:] = [name for name in names if not (here / name).is_symlink()]
    return found


def describe(path: Path) -> tuple[object, ...]:
    """What one path is."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return ("symlink", os.readlink(path))
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return ("directory", mode)
    return ("file", mode, status.st_mtime_ns, digest_of(path))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(tree: Tree) -> set[str]:
    """The SHA-256 of every file in a tree."""
    return {str(entry[3]) for entry in tree.values() if entry[0] == "file"}


def differences(one: Tree, other: Tree, shown: int = 10) -> list[str]:
    """The first few paths that are not alike, with both sides; empty when the trees are identical."""
    unlike = [path for path in sorted(one.keys() | other.keys()) if one.get(path) != other.get(path)]
    told = [f"{path}: {one.get(path)} / {other.get(path)}" for path in unlike[:shown]]
    return told if len(unlike) <= shown else [*told, f"and {len(unlike) - shown} more"]


def leftovers(folder: Path) -> list[str]:
    """The temporary files that an agent has left in a folder."""
    stage = folder / OWN / "stage"
    return sorted(os.listdir(stage)) if stage.exists() else []

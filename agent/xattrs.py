"""Extended attributes of files and directories, as far as Linux gives them to everybody: those named `user.*`.

A disk that has none, or not all, must never take any away elsewhere. What it did not take counts as being there: as
placed, not as read back. So whatever reads them knows what was known before. Blocks.
"""

import errno
import os
import stat
from collections.abc import Collection
from typing import Final

from msgspec import Struct

from agent.filesystem import Root, print_of
from agent.index import Print
from broker.model import RESERVED_NAME, XATTR_PREFIX, Kind, Xattrs, xattrs_problem

_NOT_HAD: Final = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NOT_TAKEN: Final = (
    *_NOT_HAD,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.E2BIG,
    errno.ERANGE,
    errno.EINVAL,
    errno.EPERM,
)
"""What file systems say of an attribute that is too large for them, or of a kind that they do not have."""

_MARK: Final = f"{XATTR_PREFIX}hutch"
_TRIES: Final = 4


class OversizedError(Exception):
    """The object has more than is synced."""


class Seen(Struct, frozen=True):
    """What an object has: as it is told to others.

    Attributes:
        oversized: It has more than is synced, so what was known stands.
        had: Whether its disk has such a thing.
        regained: Names of those that the disk had not taken, and that somebody has set there since.
    """

    xattrs: Xattrs
    oversized: bool = False
    had: bool = True
    regained: tuple[str, ...] = ()


def read(fd: int) -> Xattrs | None:
    """What an open object has; None where its file system, or this system, has no such thing.

    Raises:
        OversizedError: It is more than any node may have.
        OSError: It cannot be read.
    """
    if not hasattr(os, "listxattr"):
        return None
    for tries_left in reversed(range(_TRIES)):
        try:
            found = tuple((name, os.getxattr(fd, name)) for name in sorted(_names(fd)))
        except OSError as error:
            if error.errno in _NOT_HAD:
                return None
            if error.errno == errno.E2BIG:
                raise OversizedError from error
            if error.errno in (errno.ENODATA, errno.ERANGE) and tries_left:
                continue  # it changed between the two calls
            raise
        if xattrs_problem(found) is not None:
            raise OversizedError
        return found
    raise AssertionError("the last try returns or raises")


def _names(fd: int) -> list[str]:
    """Names that are not UTF-8 are nobody's: never told, never removed."""
    return [name for name in os.listxattr(fd) if name.startswith(XATTR_PREFIX) and _is_text(name)]


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def see(root: Root, fd: int, known: Xattrs, lacking: Collection[str]) -> Seen:
    """Read what an open object of a folder has, in the light of what was known.

    Args:
        root: The folder.
        fd: The open object.
        known: What it had, as far as is known.
        lacking: Names among those that this disk has not taken: they are there all the same.
    """
    try:
        found = read(fd)
    except OversizedError:
        return Seen(known, oversized=True)
    if found is None:
        return Seen(known, had=False)
    values = {name: value for name, value in known if name in lacking}
    values.update(found)
    if any(name not in values for name, _ in known) and not _has_xattrs(root):
        return Seen(known)
    merged = tuple(sorted(values.items()))
    if xattrs_problem(merged) is not None:
        return Seen(known, oversized=True)
    return Seen(merged, regained=tuple(name for name, _ in found if name in lacking))


def see_at(
    root: Root, path: str, kind: Kind, look: Print, known: Xattrs, lacking: Collection[str]
) -> Seen | None:
    """The same, of what stands at a path and looks like this; None when something else does by now.

    What may not be read has what it had.
    """
    try:
        with root.directory(path) if kind is Kind.DIRECTORY else root.open(path) as fd:
            if not look.same_content(print_of(os.fstat(fd), 0)):
                return None
            return see(root, fd, known, lacking)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return Seen(known)


def _has_xattrs(root: Root) -> bool:
    """Whether the disk has such a thing at this moment: some list none, and only say so when one is set.

    Asked only before an attribute is believed to have been removed. The answer stays at Hutch's own directory.
    """
    try:
        with root.directory(RESERVED_NAME) as fd:
            try:
                os.getxattr(fd, _MARK)
            except OSError as error:
                if error.errno != errno.ENODATA:
                    return False
                os.setxattr(fd, _MARK, b"")
    except OSError:
        return False
    return True


def write(fd: int, before: Xattrs, wanted: Xattrs) -> tuple[str, ...]:
    """Give an open object what it is to have other than before. What is to stay is left alone, and what nobody has told of.

    Returns:
        Names of those that the disk did not take: it has nothing under them then.
    """
    have, want = dict(before), dict(wanted)
    names = sorted(name for name in have.keys() | want.keys() if have.get(name) != want.get(name))
    return tuple(name for name in names if not _put(fd, name, want.get(name)))


def _put(fd: int, name: str, value: bytes | None) -> bool:
    """Set one, or (None) remove it. False when the disk does not take it."""
    if not hasattr(os, "setxattr"):
        return value is None
    if value is not None:
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in _NOT_TAKEN:
                raise
        else:
            return True
    try:  # also one that was not taken: its old value would look like somebody's edit
        os.removexattr(fd, name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, *_NOT_HAD):
            raise
    return value is None


def write_at(root: Root, path: str, kind: Kind, before: Xattrs, wanted: Xattrs) -> tuple[str, ...] | None:
    """The same, of what stands at a path, if it has what is to be replaced, or is replaced already.

    Returns:
        As `write`; None when it has what nobody has told of: somebody has changed it in the last moment.
    """
    with root.directory(path) if kind is Kind.DIRECTORY else root.open(path) as fd:
        if _is_foreign(fd, dict(before), dict(wanted)):
            return None
        try:
            return write(fd, before, wanted)
        except PermissionError:  # read-only to its owner, for whom the kernel makes no exception here
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            os.fchmod(fd, mode | 0o200)
            try:
                return write(fd, before, wanted)
            finally:
                os.fchmod(fd, mode)


def _is_foreign(fd: int, before: dict[str, bytes], wanted: dict[str, bytes]) -> bool:
    """What it lacks of both was not taken by the disk."""
    names = [name for name in before.keys() | wanted.keys() if before.get(name) != wanted.get(name)]
    return any(_get(fd, name) not in (None, before.get(name), wanted.get(name)) for name in names)


def _get(fd: int, name: str) -> bytes | None:
    if not hasattr(os, "getxattr"):
        return None
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, *_NOT_HAD):
            raise
        return None

"""What a command on a device can end with, over and above `broker.errors`.

    Unavailable
    └── StoreFull           the service has no room left for new content
    Refused
    ├── WrongPassword       the service does not know this account, or not this password
    ├── NotLinked           HUTCH_HOME holds no device yet
    ├── AlreadyLinked       HUTCH_HOME holds a device already
    ├── WrongFolder         this path cannot be a synced folder
    ├── FolderLinked        this folder, or this workspace, is synced already
    ├── NotRunning          no agent answers on this HUTCH_HOME
    ├── AlreadyRunning      another agent holds this HUTCH_HOME
    ├── DiskFull            no room (or no quota) left for what the agent must keep
    ├── Untrusted           the service's certificate is not the one that was pinned, or expected
    ├── PlainText           the address is neither https nor on this computer
    ├── NoServiceManager    this computer has no systemd to install a unit in
    ├── Held                a person has to say first that so much may be deleted or rewritten
    └── SystemRefused       the operating system said no (permission, device, network of the file system)

Each has an exit code of its own; `EXIT_CODES` is the table that `hutch --help` and `docs/cli.md` show.
"""

import errno
from typing import Final

from broker.errors import Refused, Unavailable


class StoreFull(Unavailable):
    """The service's block store has no room. Whoever runs it can make some; until then nothing new goes up."""

    code = "store_full"


class WrongPassword(Refused):
    """The service does not know this account, or not with this password: the two look the same."""

    code = "wrong_password"
    exit_code = 20


class NotLinked(Refused):
    """There is no device in HUTCH_HOME: `hutch link` comes first."""

    code = "not_linked"
    exit_code = 21


class AlreadyLinked(Refused):
    """There is a device in HUTCH_HOME already: one home, one device."""

    code = "already_linked"
    exit_code = 22


class WrongFolder(Refused):
    """This path cannot be a synced folder, and never could."""

    code = "wrong_folder"
    exit_code = 23


class FolderLinked(Refused):
    """The folder, or the workspace, is synced already: by this home or by another."""

    code = "folder_linked"
    exit_code = 24


class NotRunning(Refused):
    """No agent answers on this home's socket."""

    code = "not_running"
    exit_code = 25


class AlreadyRunning(Refused):
    """Another agent holds this home."""

    code = "already_running"
    exit_code = 26


class DiskFull(Refused):
    """The file system, or the person's quota on it, is full."""

    code = "disk_full"
    exit_code = 27


class Untrusted(Refused):
    """The service's certificate is not the one that was pinned, or that the person expected."""

    code = "untrusted"
    exit_code = 28


class PlainText(Refused):
    """A password would travel readable by whoever is on the way."""

    code = "plain_text"
    exit_code = 29


class NoServiceManager(Refused):
    """There is no systemd that answers this person."""

    code = "no_service_manager"
    exit_code = 30


class SystemRefused(Refused):
    """The operating system said no to something that no retry mends."""

    code = "system"
    exit_code = 31


class Held(Refused):
    """The service's guard holds this device's commits until a person has decided."""

    code = "held"
    exit_code = 32


INTERNAL_EXIT_CODE: Final = 70
INTERRUPTED_EXIT_CODE: Final = 130

EXIT_CODES: Final = (
    (0, "done"),
    (1, "the time is up, and not everything is synced yet"),
    (2, "the command was not understood (see --help)"),
    (10, "the service cannot be reached, or is not ready: try again later"),
    (11, "the service, or the agent, refused (the message says why)"),
    (12, "this device is not allowed to do that, or was revoked"),
    (13, "there is no such thing"),
    (14, "the service's journal is not the one that this device followed"),
    (15, "an answer, or a file of Hutch's own, is damaged"),
    (20, "wrong e-mail address or password"),
    (21, "this device is not linked yet: hutch link"),
    (22, "this device is linked already: hutch unlink"),
    (23, "that folder cannot be synced"),
    (24, "that folder, or that workspace, is synced already"),
    (25, "the agent is not running: hutch run"),
    (26, "the agent is running already"),
    (27, "the disk is full"),
    (28, "the service's certificate is not the expected one"),
    (29, "plain http is for this computer alone"),
    (30, "there is no systemd for this person"),
    (31, "the operating system refused (the message says what)"),
    (32, "much would be deleted or rewritten elsewhere: hutch review"),
    (70, "a defect in Hutch: please report it"),
    (78, "a setting is wrong (the message names it)"),
    (130, "interrupted"),
)
"""Every exit code of `hutch`, with what it means."""

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# The second: no room for the index of the write-ahead log, which is allocated when the database is opened.
_NO_ROOM_SQLITE: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})


def is_disk_full(error: BaseException) -> bool:
    """Whether the operating system, or SQLite, says that there is no room left."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return getattr(error, "sqlite_errorname", None) in _NO_ROOM_SQLITE

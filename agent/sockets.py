"""Unix sockets for one person: made where nobody else can put one, and closed to whoever else comes."""

import contextlib
import os
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import Final

from agent.errors import AlreadyRunning
from broker.errors import Forbidden, Misconfigured

_PROBE_TIMEOUT_S: Final = 2.0


def listen_privately(path: Path) -> socket.socket:
    """A bound socket of mode 0600 in a directory of ours, in place of one that a killed agent left. Blocks.

    Raises:
        AlreadyRunning: When somebody listens at this path.
        Misconfigured: When other people could change its directory, or no socket can be made there.
    """
    _make_directory(path.parent)
    _remove_stale(path)
    return _bind(path)


def _make_directory(directory: Path) -> None:
    """A directory in a place that everybody may write to must be ours, and no link, before a socket stands in it."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise Misconfigured(f"{directory} can be changed by others: no socket is put there")


def _remove_stale(path: Path) -> None:
    """What a killed agent left goes. One that still answers stays: it is in use."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except TimeoutError:
            pass  # somebody listens, and is busy
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise AlreadyRunning(f"an agent listens at {path} already")


def _bind(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)  # whoever is quicker is met by `check_peer`
    except OSError as error:
        listening.close()
        raise Misconfigured(f"no socket can be made at {path}: {error}") from error
    listening.setblocking(False)
    return listening


def check_owner(path: Path) -> None:
    """Raise `Misconfigured` when a socket is another person's, `OSError` when there is none."""
    if path.lstat().st_uid not in (os.getuid(), 0):
        raise Misconfigured(f"{path} belongs to another person")


def check_peer(connection: socket.socket) -> None:
    """Raise `Forbidden` when another person (but root) is at the other end, where the kernel tells."""
    user_id = peer_user_id(connection)
    if user_id is not None and user_id not in (os.getuid(), 0):
        raise Forbidden("the agent listens to its own person alone")


def peer_user_id(connection: socket.socket) -> int | None:
    """Who is at the other end of a Unix socket; None where the kernel does not say."""
    if hasattr(socket, "SO_PEERCRED"):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", raw)[1])
    if sys.platform == "darwin":
        # getsockopt(SOL_LOCAL, LOCAL_PEERCRED) gives a `struct xucred`: version, uid, …  Source: <sys/ucred.h>.
        raw = connection.getsockopt(0, 1, 76)
        return int(struct.unpack_from("=II", raw)[1])
    return None

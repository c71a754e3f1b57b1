"""HUTCH_HOME: where an agent keeps all that is its own, for this person's eyes alone.

    config.json     the linked device, its secrets among them (0600; refused when others may read it)
    folders.json    which folders are synced with which workspaces
    ca.pem          the service's own certificate authority, when one was pinned
    index.sqlite    the three trees
    agent.lock      held by the running agent
    agent.sock      where it listens (elsewhere, when the path would be too long for a socket)

All of it is read afresh when it is asked for: a command and the running agent may both be at it.
"""

import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from agent.durable import write_file
from agent.errors import AlreadyRunning, NotLinked
from broker.errors import Corrupt, Misconfigured

MAX_SOCKET_PATH_BYTES: Final = 100
"""The kernel's own limit is 108 (Linux) or 104 (macOS), its ending NUL included."""

T = TypeVar("T")


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """The linked device: what it is called, where its servers are, and what it proves itself with.

    Attributes:
        device_secret: For HTTP: `Authorization: Bearer <device id>.<secret>`.
        amqp_url: Without credentials; the broker's user is the device id, with `amqp_password`.
        cafile: The pinned certificate authority, as a name within HUTCH_HOME; None: the system's trust store.
    """

    device_id: UUID
    device_secret: str
    user_id: UUID
    email: str
    device_name: str
    metadata_url: str
    gateway_url: str
    amqp_url: str
    amqp_password: str
    queue: str
    cafile: str | None = None

    @property
    def bearer(self) -> str:
        """What the device proves itself with over HTTP."""
        return f"{self.device_id}.{self.device_secret}"

    def __repr__(self) -> str:
        return f"Credential(device_id={self.device_id})"


class FolderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A synced folder: its absolute path, and the workspace that it is synced with."""

    folder: str
    workspace_id: UUID
    name: str


@dataclass(frozen=True)
class Home:
    """One agent's own directory. `runtime` is where a short-lived socket may stand, should `root` be too long."""

    root: Path
    runtime: Path

    @classmethod
    def open(cls, environ: Mapping[str, str]) -> "Home":
        """Find HUTCH_HOME, and check that it is safe to trust. It need not exist yet.

        Raises:
            Misconfigured: When it is no directory, another person's, or writable by others.
        """
        root = Path(environ.get("HUTCH_HOME") or default_root(environ)).expanduser().absolute()
        _check_directory(root)
        return cls(root=root, runtime=_runtime_directory(environ))

    # --- paths

    @property
    def config_path(self) -> Path:
        return self.root / "config.json"

    @property
    def folders_path(self) -> Path:
        return self.root / "folders.json"

    @property
    def index_path(self) -> Path:
        return self.root / "index.sqlite"

    @property
    def ca_path(self) -> Path:
        """Where a pinned certificate authority is kept, whether there is one or not."""
        return self.root / "ca.pem"

    @property
    def cafile(self) -> Path | None:
        """The pinned certificate authority; None: the system's trust store."""
        credential = self.credential
        if credential is None or credential.cafile is None:
            return None
        return self.root / credential.cafile

    @property
    def socket_path(self) -> Path:
        """Where the running agent listens. Always the same for the same HUTCH_HOME and person."""
        path = self.root / "agent.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:24]
        return self.runtime / f"{digest}.sock"

    # --- the device

    @property
    def credential(self) -> Credential | None:
        """The linked device, read afresh; None before `hutch link`.

        Raises:
            Misconfigured: When others may read the file: its secrets may be known.
            Corrupt: When it cannot be understood.
        """
        return _read_private(self.config_path, Credential)

    def linked(self) -> Credential:
        """The linked device. Raises `NotLinked` before `hutch link`, and what `credential` raises."""
        credential = self.credential
        if credential is None:
            raise NotLinked(
                "this device is not linked yet: run `hutch link METADATA_URL --email EMAIL` first"
            )
        return credential

    def save_credential(self, credential: Credential) -> None:
        """Keep the device, durably. Raises `DiskFull`."""
        self.make()
        write_file(self.config_path, msgspec.json.encode(credential))

    def save_ca(self, pem: bytes) -> str:
        """Pin a certificate authority. Returns its name within HUTCH_HOME, for `Credential.cafile`."""
        self.make()
        write_file(self.ca_path, pem)
        return self.ca_path.name

    def forget(self) -> None:
        """Remove the device, the folders' list and the database. What was synced stays. The agent must not run."""
        for path in [self.folders_path, *self._database_paths(), self.ca_path, self.config_path]:
            path.unlink(missing_ok=True)

    def clear_left_over(self) -> list[FolderRecord]:
        """Remove the folders' list and the database of a device that was here before, whose credential is lost.

        Returns:
            What was on the list, as far as it can be read.
        """
        try:
            records = self.folders()
        except Corrupt:
            records = []
        for path in [self.folders_path, *self._database_paths()]:
            path.unlink(missing_ok=True)
        return records

    def _database_paths(self) -> list[Path]:
        return [Path(f"{self.index_path}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")]

    # --- its folders

    def folders(self) -> list[FolderRecord]:
        """The synced folders, read afresh, in the order in which they were added. Raises `Corrupt`."""
        return _read_private(self.folders_path, list[FolderRecord]) or []

    def add_folder(self, record: FolderRecord) -> None:
        """Keep a folder on the list, in place of an earlier record of the same path. Raises `DiskFull`."""
        with self._editing_folders() as records:
            records[:] = [kept for kept in records if kept.folder != record.folder] + [record]

    def remove_folder(self, folder: str) -> None:
        """Take a folder off the list; nothing happens when it is not there. Raises `DiskFull`."""
        if all(kept.folder != folder for kept in self.folders()):
            return
        with self._editing_folders() as records:
            records[:] = [kept for kept in records if kept.folder != folder]

    @contextmanager
    def _editing_folders(self) -> Iterator[list[FolderRecord]]:
        """Read, change, write. The agent and a command may both be at it: one after the other."""
        self.make()
        with _open_lock(self.root / "folders.lock") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            records = self.folders()
            yield records
            write_file(self.folders_path, msgspec.json.encode(records))

    # --- one agent at a time

    def make(self) -> None:
        """Make the directory, for this person alone."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be this home's only agent. The kernel lets go of the lock when the process ends, however it ends.

        Raises:
            AlreadyRunning: When another process is it.
        """
        self.make()
        with _open_lock(self.root / "agent.lock") as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(
                    f"an agent is running on {self.root} already: see `hutch status`"
                ) from None
            yield


def default_root(environ: Mapping[str, str]) -> Path:
    """Where the platform keeps a program's data: `~/.local/share/hutch`, or macOS's Application Support."""
    person = Path(environ.get("HOME") or "~").expanduser()
    if sys.platform == "darwin":
        return person / "Library" / "Application Support" / "Hutch"
    data = environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else person / ".local" / "share") / "hutch"


def _runtime_directory(environ: Mapping[str, str]) -> Path:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and len(os.fsencode(runtime)) < MAX_SOCKET_PATH_BYTES - 40:
        return Path(runtime) / "hutch"
    return Path(f"/tmp/hutch-{os.getuid()}")  # noqa: S108  # the server makes it 0700, and checks whose it is


def _check_directory(root: Path) -> None:
    try:
        status = root.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Misconfigured(f"HUTCH_HOME={root} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise Misconfigured(f"HUTCH_HOME={root} is not a directory")
    if status.st_uid != os.getuid():
        raise Misconfigured(f"HUTCH_HOME={root} belongs to another person")
    if status.st_mode & 0o022:
        _narrow(root)


def _narrow(root: Path) -> None:
    """An empty directory is taken as it is meant; in one that holds something, others may have been at work."""
    if any(root.iterdir()):
        raise Misconfigured(f"HUTCH_HOME={root} can be changed by others: run `chmod 700` on it")
    root.chmod(0o700)


def _read_private(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise Misconfigured(
                    f"{path} can be read by others: run `chmod 600` on it, and consider a new link"
                )
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise Corrupt(
            f"{path} is damaged ({error}): `hutch unlink --force` forgets what this device was linked to; then link it anew"
        ) from error


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

"""Real file systems for a test: mounted where it says, and unmounted whatever comes of it."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]


class Mounts:
    """Mounts, and undoes it all on `close`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._mounted: list[Path] = []
        self._servers: list[subprocess.Popen[str]] = []

    def tmpfs(self, place: Path, size: str = "64m") -> None:
        """A file system in memory. It has an exchange of names, and fine times."""
        self._mount(place, "-t", "tmpfs", "-o", f"size={size}", "hutch-test")

    def ramfs(self, place: Path) -> None:
        """A file system in memory that lists no extended attributes, and takes none."""
        self._mount(place, "-t", "ramfs", "hutch-test")

    def ext4(self, place: Path, *, size_bytes: int = 64_000_000, coarse: bool = False) -> None:
        """A file system in an image. With `coarse` its inodes are the small ones of old: times of whole seconds."""
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("there is no mkfs.ext4 to make an image with")
        image = self.base / f"{len(self._mounted)}.image"
        with image.open("wb") as file:
            file.truncate(size_bytes)
        inode = ["-I", "128"] if coarse else []
        # No blocks for root alone: a full disk is full for everybody.
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", *inode, image], check=True, capture_output=True)
        try:
            self._mount(place, "-o", "loop", str(image))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"an image cannot be mounted here: {error.stderr!r}")
        shutil.rmtree(place / "lost+found")

    def odd(self, place: Path, *options: str) -> "subprocess.Popen[str]":
        """One of `tests.filesystems.fuse`, with its options. Returns its server."""
        if not os.path.exists("/dev/fuse"):
            pytest.skip("there is no /dev/fuse on this machine")
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.filesystems.fuse", str(place), *options],
            cwd=HERE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "mounted\n"
        self._mounted.append(place)
        return server

    def remount(self, place: Path, options: str) -> None:
        """Change a mounted file system's options."""
        subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)

    def unmount(self, place: Path) -> None:
        """Take one away, as somebody pulls out a stick: also while it is in use."""
        subprocess.run(["umount", "--lazy", place], check=True)
        self._mounted.remove(place)

    def bind(self, source: Path, place: Path) -> None:
        """Show a directory at another place too."""
        self._mount(place, "--bind", str(source))

    def _mount(self, place: Path, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, place], check=True, capture_output=True)
        self._mounted.append(place)

    def close(self) -> None:
        """Unmount all, the last one first."""
        for place in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", place], check=False)
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
            assert server.stdout is not None
            server.stdout.close()


@functools.cache
def why_not() -> str | None:
    """Why this process cannot mount anything; None when it can. Being root is not enough in most containers."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root of a Linux machine can mount file systems"
    with tempfile.TemporaryDirectory() as place:
        tried = subprocess.run(["mount", "-t", "tmpfs", "hutch-test", place], capture_output=True)
        if tried.returncode == 0:
            subprocess.run(["umount", place], check=True)
        return None if tried.returncode == 0 else f"nothing may be mounted here: {tried.stderr.decode()}"


@contextmanager
def as_nobody() -> Iterator[None]:
    """This process with the rights of nobody: to root no mode forbids anything."""
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)

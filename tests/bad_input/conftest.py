"""One real service for all that is bad: devices by their command line, and raw clients with a device's credentials."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.bad_input.wire import DeadLetters, Wire, link
from tests.machines.stack import Device, Service

STORE_SIZE = "48m"


@pytest.fixture(scope="session")
def small_disk() -> Iterator[Callable[[Path, str], None]]:
    """Mount a small file system of its own at a path. Skips, where that is not allowed; all are gone at the end."""
    mounted: list[Path] = []

    def mount(path: Path, size: str) -> None:
        if not may_mount():
            pytest.skip("only root can make a small file system to fill")
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "hutch-test", path], check=True)
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", path], check=True)


def may_mount() -> bool:
    """Whether this process can mount a file system: being root is not enough in most containers."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as place:
        tried = subprocess.run(["mount", "-t", "tmpfs", "hutch-test", place], capture_output=True)
        if tried.returncode == 0:
            subprocess.run(["umount", place], check=True)
        return tried.returncode == 0


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, small_disk: Callable[[Path, str], None]
) -> Iterator[Service]:
    """A stack. Its block store lies on a small file system of its own, where one can be made."""
    one = Service(tmp_path_factory.mktemp("bad input") / "service")
    if may_mount():
        small_disk(one.data / "blocks", STORE_SIZE)
    try:
        one.up()
        yield one
    finally:
        one.kill()


@pytest.fixture
def devices(service: Service, tmp_path: Path) -> Iterator[Callable[[str], Device]]:
    """Makes devices, by name, that are not linked yet; their agents are ended with the test."""
    made: list[Device] = []

    def make(name: str) -> Device:
        device = Device(tmp_path / name)
        device.folder.mkdir(parents=True)
        made.append(device)
        return device

    yield make
    for device in made:
        device.stop()


@pytest.fixture
def email(service: Service) -> str:
    """An account of the test's own."""
    return service.add_person()


@pytest.fixture(scope="module")
async def wire(service: Service) -> AsyncIterator[Wire]:
    """A raw client with the credentials of a linked device: one for all tests of a file, whatever they do with it."""
    async with await link(service.told["metadata_url"], service.add_person()) as one:
        yield one


@pytest.fixture(scope="session")
async def dead(service: Service) -> AsyncIterator[DeadLetters]:
    """What the service has put aside."""
    async with DeadLetters(service.told["amqp_url"]) as letters:
        yield letters

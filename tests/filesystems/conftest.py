"""Real file systems under whole agents on a service in memory."""

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts, why_not

Pair = tuple[World, Device, Device]


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory of the test's own whose way down is open to everybody."""
    with tempfile.TemporaryDirectory(prefix="hutch-", ignore_cleanup_errors=True) as place:
        os.chmod(place, 0o777)
        yield Path(place)


@pytest.fixture
def mounts(base: Path) -> Iterator[Mounts]:
    """Mounts file systems. Skips, and says why, where that cannot be; all are gone at the end."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made = Mounts(base)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
async def pair(base: Path, mounts: Mounts) -> AsyncIterator[Callable[[], Awaitable[Pair]]]:
    """Makes a world of a laptop and a desktop, not started; both are stopped before anything is unmounted."""
    made: list[World] = []

    async def make() -> Pair:
        world = await World.make(base)
        made.append(world)
        return world, await world.device("laptop"), await world.device("desktop")

    yield make
    for world in made:
        for device in world.devices.values():
            await device.stop()

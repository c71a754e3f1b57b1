"""Extended attributes on real parts: through the broker, the workers and the database, there and back."""

import os
from pathlib import Path

import pytest

from tests.e2e.device import Pair
from tests.e2e.journal import check_journal
from tests.e2e.stack import Stack

ARRIVAL_S = 60.0


def tags(path: Path) -> dict[str, bytes]:
    """What stands on the disk."""
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}


async def test_extended_attributes_there_and_back(running: Stack, pair: Pair) -> None:
    email, laptop, desktop = pair
    try:
        os.setxattr(laptop.folder, "user.try", b"")
    except OSError as error:
        pytest.skip(f"the directory for temporary files has no extended attributes: {error}")
    photo = laptop.write("trip/photo.raw", b"sea" * 100_000)
    os.setxattr(photo, "user.rating", b"5")
    os.setxattr(photo, "user.raw", bytes(range(256)))
    os.setxattr(laptop.folder / "trip", "user.colour", b"blue")
    assert laptop.wait(ARRIVAL_S)
    assert desktop.wait(ARRIVAL_S)
    there = desktop.folder / "trip" / "photo.raw"
    assert tags(there) == {"user.rating": b"5", "user.raw": bytes(range(256))}
    assert tags(there.parent) == {"user.colour": b"blue"}

    os.setxattr(there, "user.rating", b"4")
    os.removexattr(there, "user.raw")
    os.removexattr(there.parent, "user.colour")
    there.parent.rename(desktop.folder / "voyage")
    assert desktop.wait(ARRIVAL_S)
    assert laptop.wait(ARRIVAL_S)
    assert tags(laptop.folder / "voyage" / "photo.raw") == {"user.rating": b"4"}
    assert tags(laptop.folder / "voyage") == {}
    await check_journal(running, email)

"""`kill -9` of each part in the middle of a transfer: all comes back and together by itself, and nothing is lost."""

import hashlib
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.device import Device, Pair, wait_until
from tests.e2e.journal import check_journal
from tests.e2e.stack import Stack, settle
from tests.e2e.trees import contents, leftovers, tree_of

FILES = 2_000
SIZE_BYTES = 6_000
TIMEOUT_S = 150.0


Act = Callable[[Stack, Device, Device], None]
Moment = Callable[[Stack, Device, Device], bool]


def write_many(folder: Path, written: list[str]) -> None:
    """A transfer's worth of small files, in some directories; tells their digests."""
    chance = random.Random(FILES)
    for number in range(FILES):
        content = chance.randbytes(chance.randrange(SIZE_BYTES))
        target = folder / f"part {number % 20}" / f"{number}.bin"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        written.append(hashlib.sha256(content).hexdigest())


def count(folder: Path) -> int:
    """How many files have arrived."""
    return sum(len(files) for place, _, files in os.walk(folder) if ".hutch" not in place)


def has_begun(stack: Stack, laptop: Device, desktop: Device) -> bool:
    return count(desktop.folder) > 0


def is_staging(stack: Stack, laptop: Device, desktop: Device) -> bool:
    return has_begun(stack, laptop, desktop) and len(leftovers(desktop.folder)) > 100


def kill_server(name: str) -> Act:
    def kill(stack: Stack, laptop: Device, desktop: Device) -> None:
        stack.wait_restarted(name, stack.signal(name, signal.SIGKILL))

    return kill


def kill_sender(stack: Stack, laptop: Device, desktop: Device) -> None:
    laptop.kill()
    laptop.start()


def kill_receiver(stack: Stack, laptop: Device, desktop: Device) -> None:
    desktop.kill()
    desktop.start()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("moment", "kill"),
    [
        pytest.param(has_begun, kill_server("rabbitmq"), id="rabbitmq"),
        pytest.param(has_begun, kill_server("postgres"), id="postgres"),
        pytest.param(has_begun, kill_server("worker-1"), id="worker"),
        pytest.param(has_begun, kill_server("gateway"), id="gateway"),
        pytest.param(has_begun, kill_server("metadata"), id="metadata server"),
        pytest.param(has_begun, kill_sender, id="sending agent"),
        pytest.param(is_staging, kill_receiver, id="receiving agent"),
    ],
)
async def test_nothing_is_lost_when_it_is_killed(
    running: Stack, pair: Pair, moment: Moment, kill: Act
) -> None:
    email, laptop, desktop = pair
    written: list[str] = []
    writer = threading.Thread(target=write_many, args=(laptop.folder, written), name="person")
    writer.start()
    try:
        wait_until(lambda: moment(running, laptop, desktop), TIMEOUT_S, lambda: "nothing has arrived")
        assert count(desktop.folder) < FILES, "the transfer was over already"
        kill(running, laptop, desktop)
    finally:
        writer.join()
    settle(laptop, desktop, timeout_s=TIMEOUT_S)
    tree = tree_of(desktop.folder)
    assert len(written) == FILES
    assert set(written) == contents(tree)
    assert count(desktop.folder) == FILES, "no file twice"
    assert running.leftovers() == []
    await check_journal(running, email)

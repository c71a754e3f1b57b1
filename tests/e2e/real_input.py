"""Real input, there and back: Python's standard library and a large file, cut off, changed on both sides, and together again.

    python -m tests.e2e.real_input [--big BYTES] [--seed WORD]

prints how long each step took. `test_real_input` does the same with a smaller large file.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import sysconfig
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.e2e.device import Pair
from tests.e2e.hands import DELETES, EDITS, MOVES, Hands, pick_shared
from tests.e2e.journal import check_journal
from tests.e2e.stack import Stack, running_stack, settle
from tests.e2e.trees import contents, tree_of

TIMEOUT_S = 250.0
COPIES = 2
_BLOCK_BYTES = 1_000_000

Figures = dict[str, float]


def fill(folder: Path, big_bytes: int) -> None:
    """Put in a folder what a person might: thousands of files, a large one, links, modes, old times, empty directories."""
    library = Path(sysconfig.get_path("stdlib"))
    ignored = shutil.ignore_patterns("site-packages", "dist-packages")
    for number in range(1, COPIES + 1):
        shutil.copytree(library, folder / f"library {number}", symlinks=True, ignore=ignored)
    chance = random.Random(big_bytes)
    with (folder / "big.bin").open("wb") as file:
        for at in range(0, big_bytes, _BLOCK_BYTES):
            file.write(chance.randbytes(min(_BLOCK_BYTES, big_bytes - at)))
    (folder / "link").symlink_to("library 1/os.py")
    (folder / "dangling").symlink_to("nowhere/at all")
    (folder / "empty" / "within empty").mkdir(parents=True)
    (folder / "private").mkdir(mode=0o700)
    script = folder / "private" / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    os.utime(script, ns=(0, 86_400_000_000_001))


def add_all(pair: Pair, big_bytes: int, figures: Figures) -> None:
    """Added on one, identical on the other."""
    with timed(figures, "add_s"):
        fill(pair.laptop.folder, big_bytes)
        settle(pair.laptop, pair.desktop, timeout_s=TIMEOUT_S)
    tree = tree_of(pair.desktop.folder)
    figures["paths"] = len(tree)
    assert len(tree) > 1_000
    assert tree["private/script"][:3] == ("file", 0o755, 86_400_000_000_001)
    assert tree["dangling"] == ("symlink", "nowhere/at all")
    assert tree["empty/within empty"][0] == "directory"


@contextmanager
def agents_killed(pair: Pair) -> Iterator[None]:
    """Nobody watches: all is found out when the agents start again."""
    for device in (pair.laptop, pair.desktop):
        device.kill()
    yield
    for device in (pair.laptop, pair.desktop):
        device.start()


@contextmanager
def servers_stopped(stack: Stack) -> Iterator[None]:
    """The agents run and watch, and reach nobody."""
    with stack.stopped("rabbitmq"), stack.stopped("gateway"), stack.stopped("metadata"):
        yield


def work_apart(pair: Pair, cut: AbstractContextManager[None], seed: str, figures: Figures) -> None:
    """Both are cut off at once, and both work on; then they come together, and nothing that was written is lost."""
    shared = pick_shared(pair.laptop.folder, seed)
    both = [Hands(device.folder, f"{seed} {device.name}") for device in (pair.laptop, pair.desktop)]
    with cut:
        for hands in both:
            hands.work(shared)
            assert hands.done == {"edit": EDITS, "move": MOVES, "delete": DELETES}
        written = [set(hands.written.values()) for hands in both]
        assert all(written)
    with timed(figures, "merge_s"):
        settle(pair.laptop, pair.desktop, timeout_s=TIMEOUT_S)
    for device in (pair.laptop, pair.desktop):
        lost = set.union(*written) - contents(tree_of(device.folder))
        assert not lost, f"{device.name} lacks {len(lost)} contents that were written last"
    figures["conflict_copies"] = pair.laptop.status()["workspaces"][0]["conflicts"]


async def there_and_back(stack: Stack, pair: Pair, big_bytes: int, seed: str) -> Figures:
    """The whole way, twice: with the agents killed, and with the servers stopped. Returns what it took."""
    figures: Figures = {}
    add_all(pair, big_bytes, figures)
    work_apart(pair, agents_killed(pair), f"{seed} unwatched", figures)
    work_apart(pair, servers_stopped(stack), f"{seed} watched", figures)
    assert stack.leftovers() == []
    figures["commits"] = await check_journal(stack, pair.email)
    return figures


@contextmanager
def timed(figures: Figures, name: str) -> Iterator[None]:
    """Note how long something took, in all of its times."""
    began = time.monotonic()
    yield
    figures[name] = round(figures.get(name, 0.0) + time.monotonic() - began, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--big", type=int, default=1_000_000_000, help="bytes of the large file")
    parser.add_argument("--seed", default="one")
    options = parser.parse_args()
    with running_stack() as stack:
        figures = asyncio.run(there_and_back(stack, stack.add_pair(), options.big, options.seed))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

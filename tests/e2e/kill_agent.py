"""`kill -9` of the agent at random instants, while two people work on the same files, on a real service.

    python -m tests.e2e.kill_agent [--kills 500] [--seed WORD] [--every 25] [--pause S]

Two people work without a pause, in two folders of one workspace; of a random one of the two agents the process is killed,
and started again at once. Every so many kills the people rest, and all is held to what must be true then. Prints
progress and ends with a line of counts, and with 1 when anything was lost, half, left over or not the same. What people
chose to do is decided by the seed; when it happened is not.
"""

import argparse
import asyncio
import hashlib
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from broker.messages import decode_content, decode_entry
from broker.model import Chunk
from deploy import processes
from tests.e2e.device import Device, FailedError, Pair, wait_until
from tests.e2e.journal import check_journal, workspace_of
from tests.e2e.pages import Content, render
from tests.e2e.stack import Stack, running_stack, settle
from tests.e2e.trees import OWN, contents, leftovers, tree_of
from tests.e2e.typist import Reader, Record, Typist, strays

LONGEST_LIFE_S: Final = 3.0
SETTLE_S: Final = 240.0
SHOWN: Final = 10

WRONG: Final = ("lost", "half", "stray", "diverged", "ended", "broken")
"""What must not be: contents that are nowhere, files that were seen half, files that nobody has made and nobody clears,
folders that do not become the same, agents that ended by themselves, a journal that breaks its promises."""


class Trial:
    """One run: two devices, two people, and a killer.

    Attributes:
        counts: What was done and met.
        wrong: What must not be, by name.
        in_history_only: Contents that are owed, and are in no tree any more: nobody has replaced them on purpose.
    """

    def __init__(self, stack: Stack, pair: Pair, seed: str, pause_s: float = 0.08) -> None:
        self._stack = stack
        self._email = pair.email
        self._devices = (pair.laptop, pair.desktop)
        self._chance = random.Random(f"{seed} killer")
        self._record = Record()
        self.typists = [
            Typist(
                device.name,
                device.folder,
                device.folder.with_name(f"{device.name} drafts"),
                self._record,
                f"{seed} {device.name}",
                pause_s,
            )
            for device in self._devices
        ]
        self.readers = [Reader(device.name, device.folder) for device in self._devices]
        self.counts: Counter[str] = Counter()
        self.wrong: dict[str, list[str]] = {name: [] for name in WRONG}
        self.in_history_only: list[Content] = []
        self._own: dict[str, set[str]] = {}

    async def run(self, kills: int, every: int, tell: Callable[[str], None]) -> None:
        """Kill so many times; stop early when anything is wrong."""
        settle(*self._devices, timeout_s=SETTLE_S)
        self._own = {device.name: _own_files(device) for device in self._devices}
        told: set[Content] = set()
        with ExitStack() as stack:
            for reader in self.readers:
                stack.enter_context(reader)
            for begun in range(0, kills, every):
                self._work(min(every, kills - begun))
                await self._check()
                tell(self.line())
                for content in self.in_history_only:
                    if content not in told:
                        told.add(content)
                        tell("\n".join([f"in history only: {content}", *await self.tell_history(content)]))
                if self.is_wrong:
                    return

    @property
    def is_wrong(self) -> bool:
        """Whether anything must not be."""
        return any(self.wrong.values())

    def line(self) -> str:
        """`kills=… lost=… half=… …`, and what else was counted."""
        told = Counter(self.counts)
        told["operations"] = sum(sum(typist.done.values()) for typist in self.typists)
        told["contents"] = self._record.written
        told["owed"] = len(self._record.living)
        told["blind"] = sum(typist.blind for typist in self.typists)
        told["files_read"] = sum(reader.files for reader in self.readers)
        told["met_in_place"] = sum(reader.cut for reader in self.readers)
        wrong = " ".join(f"{name}={len(found)}" for name, found in self.wrong.items())
        names = (*_FIRST, *sorted(told.keys() - {*_FIRST, "kills"}))
        return f"kills={told['kills']} {wrong} " + " ".join(f"{name}={told[name]}" for name in names)

    # --- the killing

    def _work(self, kills: int) -> None:
        for typist in self.typists:
            typist.start()
        try:
            for _ in range(kills):
                self._kill(self._chance.choice(self._devices))
        finally:
            for typist in self.typists:
                typist.stop()

    def _kill(self, device: Device) -> None:
        """At any instant of its life; or as soon as it has something in its stage, where a crash leaves most."""
        life_s = self._chance.choice([0.5, 1.0, LONGEST_LIFE_S]) * self._chance.random()
        if self._chance.random() < 0.5:
            processes.wait_until(lambda: bool(leftovers(device.folder)), LONGEST_LIFE_S)
            life_s = 0.05 * self._chance.random()
        processes.wait_until(lambda: False, life_s)
        try:
            device.check()
        except FailedError as error:
            self.wrong["ended"].append(str(error))
        if device.process is not None:
            device.kill()
            self.counts["kills"] += 1
            self._look_at_the_dead(device)
        device.start()

    def _look_at_the_dead(self, device: Device) -> None:
        """What it was in the middle of."""
        for suffix in {name.rpartition(".")[2] for name in leftovers(device.folder)}:
            self.counts[f"stage_{suffix}"] += 1
        for name, is_there in _under_way(device).items():
            self.counts[name] += is_there

    # --- what must be true when all rest

    async def _check(self) -> None:
        try:
            # What a program had open while it was replaced stays in the stage until the next look at it.
            wait_until(self._has_cleared, SETTLE_S, lambda: "the stage is not cleared")
            settle(*self._devices, timeout_s=SETTLE_S)
        except AssertionError as error:
            self.wrong["diverged"].append(str(error))
        for device in self._devices:
            self._check_folder(device)
        await self._check_record()
        try:
            self.counts["commits"] = await check_journal(self._stack, self._email)
        except AssertionError as error:
            self.wrong["broken"].append(str(error))
        for typist in self.typists:
            self.wrong["half"] += [line for line in typist.torn if line not in self.wrong["half"]]
        for reader in self.readers:
            self.wrong["half"] += [line for line in reader.half if line not in self.wrong["half"]]

    def _has_cleared(self) -> bool:
        return all(device.wait(SETTLE_S) and not leftovers(device.folder) for device in self._devices)

    def _check_folder(self, device: Device) -> None:
        found = [f"{device.name}: {path}" for path in strays(device.folder)]
        found += [f"{device.name}: {OWN}/stage/{name}" for name in leftovers(device.folder)]
        found += [f"{device.name}: {path}" for path in _own_files(device) - self._own[device.name]]
        self.wrong["stray"] += found
        copies = [
            name for name in tree_of(device.folder) if "(conflicted copy of " in name.rpartition("/")[2]
        ]
        self.counts["conflict_copies"] = len(copies)

    async def _check_record(self) -> None:
        """All that is owed is in both trees, or a version that the service keeps."""
        owed = {_digest(content): content for content in self._record.living}
        missing: dict[str, Content] = {}
        for device in self._devices:
            there = contents(tree_of(device.folder))
            missing |= {digest: content for digest, content in owed.items() if digest not in there}
        lost = await self._not_in_history(missing.values())
        self.in_history_only = [content for content in missing.values() if content not in lost]
        self.counts["in_history_only"] = len(self.in_history_only)
        self.wrong["lost"] += [f"{content}" for content in lost]
        self.wrong["stray"] += self._stack.leftovers()

    async def tell_history(self, content: Content) -> list[str]:
        """What the journal says of the nodes that have ever held a content, and what people did with it."""
        workspace_id = (await workspace_of(self._stack, self._email))["workspace_id"]
        data = render(content)
        rows = await self._stack.fetch(
            "SELECT node_id, manifest FROM versions WHERE workspace_id = $1 AND size_bytes = $2",
            workspace_id,
            len(data),
        )
        nodes = {row["node_id"] for row in rows if _holds(decode_content(row["manifest"]).chunks, data)}
        names = {row["device_id"]: row["name"] for row in await self._stack.fetch("SELECT * FROM devices")}
        entries = await self._stack.fetch(
            "SELECT entry FROM journal WHERE workspace_id = $1 ORDER BY seq", workspace_id
        )
        told = []
        for entry in (decode_entry(row["entry"]) for row in entries):
            for operation in entry.operations:
                if operation.node_id in nodes:
                    told.append(f"{entry.seq} by {names[entry.device_id]}: {operation}")
        marks = {f"{mark.author}#{mark.number}" for mark in content}
        for typist in self.typists:
            lines = [line for line in typist.log if marks & set(re.split(r"[ +]", line))]
            told += [f"{typist.name}: {line}" for line in lines]
        return told

    async def _not_in_history(self, sought: Collection[Content]) -> list[Content]:
        workspace_id = (await workspace_of(self._stack, self._email))["workspace_id"]
        whole = {content: render(content) for content in sought}
        rows = await self._stack.fetch(
            "SELECT DISTINCT manifest FROM versions WHERE workspace_id = $1 AND size_bytes = ANY($2)",
            workspace_id,
            sorted({len(data) for data in whole.values()}),
        )
        manifests = [decode_content(row["manifest"]).chunks for row in rows]
        return [
            content
            for content, data in whole.items()
            if not any(_holds(manifest, data) for manifest in manifests)
        ]


_FIRST: Final = ("operations", "contents", "owed", "in_history_only", "commits", "conflict_copies")


def _holds(manifest: Collection[Chunk], data: bytes) -> bool:
    """Whether a manifest is one of these bytes, however they are cut."""
    at = 0
    for chunk in manifest:
        if _sha256(data[at : at + chunk.size]) != chunk.hash:
            return False
        at += chunk.size
    return at == len(data)


def _under_way(device: Device) -> dict[str, bool]:
    """Whether a dead agent had begun a placing, and had a request in flight: as a copy of its database says."""
    copy = device.home.with_name(f"{device.name} dead")
    copy.mkdir(exist_ok=True)
    try:
        for name in ("index.sqlite", "index.sqlite-wal"):
            if (device.home / name).exists():
                shutil.copy(device.home / name, copy / name)
        with closing(sqlite3.connect(copy / "index.sqlite")) as database:
            row = database.execute("SELECT intent IS NOT NULL, request IS NOT NULL FROM folders").fetchone()
    finally:
        shutil.rmtree(copy)
    return {"placing": bool(row and row[0]), "asking": bool(row and row[1])}


def _own_files(device: Device) -> set[str]:
    """What an agent keeps for itself: in the folder, and in its home."""
    found = {f"{OWN}/{name}" for name in os.listdir(device.folder / OWN)}
    databases = {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}
    return found | {f"home/{name}" for name in {*os.listdir(device.home)} | databases}


def _digest(content: Content) -> str:
    return _sha256(render(content)).hex()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def main() -> int:
    """Run, and say what came of it."""
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing that was started is left running
    began = time.monotonic()
    with running_stack() as stack:
        trial = Trial(stack, stack.add_pair(), options.seed, options.pause)
        asyncio.run(
            trial.run(options.kills, options.every, lambda line: print(line, file=sys.stderr, flush=True))
        )
        for name, found in trial.wrong.items():
            for what in found[:SHOWN]:
                print(f"{name}: {what}")
        if trial.is_wrong and options.keep is not None:
            shutil.copytree(stack.folder, options.keep, symlinks=True, ignore=_sockets)
    print(f"{trial.line()} duration_s={time.monotonic() - began:.0f}")
    return 1 if trial.is_wrong else 0


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_socket()]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.kill_agent",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", default="one")
    parser.add_argument(
        "--every", type=int, default=25, help="after how many kills all rest, and is looked at"
    )
    parser.add_argument(
        "--pause", type=float, default=0.08, help="a person's longest pause between two things"
    )
    parser.add_argument("--keep", type=Path, help="where to copy everything to when something is wrong")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

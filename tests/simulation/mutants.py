"""`python -m tests.simulation.mutants [NAME …]`: does the simulation notice when the engine is broken on purpose?

Each mutant is the program with one rule taken away, in a copy of the checkout. Runs go on until one breaks a promise: the
mutant is killed then. Those that survive are listed; `docs/simulation.md` says why each of them does.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from msgspec import Struct

CHECKOUT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("agent", "broker", "metadata", "sync_workers", "block_gateway", "tests")


class Mutant(Struct, frozen=True):
    """A rule taken away: in a file, one text stands for another."""

    name: str
    file: str
    old: str
    new: str


MUTANTS: Final = (
    Mutant(
        "the merge base is saved before the placing",
        "agent/fetch.py",
        '        batch.columns["intent"] = replica.intent\n        await replica.index.write(replica.key, batch)',
        '        batch.columns["intent"] = replica.intent\n        for step in intent.steps:\n'
        "            batch.synced[step.node.node_id] = step.remote\n        await replica.write(batch)",
    ),
    Mutant(
        "a request is acknowledged before it is committed",
        "sync_workers/worker.py",
        "        try:\n            result, retried = await self._commit(batch, decide)",
        "        for job in batch:\n            await job.delivery.ack()\n"
        "        await asyncio.sleep(0.01)\n"
        "        try:\n            result, retried = await self._commit(batch, decide)",
    ),
    Mutant(
        "a deletion ignores children that its author has not seen",
        "sync_workers/tree.py",
        "        return None if subtree_digest(known) == op.subtree else ConflictCode.SUBTREE_CHANGED",
        "        subtree_digest(known)\n        return None",
    ),
    Mutant(
        "a disk that has no extended attributes takes them away elsewhere",
        "agent/xattrs.py",
        "        return Seen(known, had=False)",
        "        return Seen((), had=False)",
    ),
    Mutant(
        "extended attributes that the disk did not take are not remembered",
        "agent/fetch.py",
        "            batch.lacking[node.node_id] = _still_lacking(step, left, outcome.lacking[node.node_id]) or None",
        "            batch.lacking[node.node_id] = None",
    ),
    Mutant(
        "a conflict copy takes a name that is not free",
        "agent/place.py",
        "lambda candidate: root.look(prefix + candidate) is None)\n        with contextlib.suppress(FileExistsError):",
        "lambda candidate: True)\n"
        "        if root.look(prefix + free) is not None:\n            root.remove_file(prefix + free)\n"
        "        with contextlib.suppress(FileExistsError):",
    ),
    Mutant(
        "a replaced file is dropped without another look at it",
        "agent/place.py",
        "        if step.seen is None or not look.same_file(step.seen):\n            return False",
        "        if step.seen is None:\n            return False",
    ),
    Mutant(
        "a file that is to be replaced is not looked at again before",
        "agent/place.py",
        "    return now.same_content(seen)\n\n\ndef _is_in_the_way",
        "    return (now.dev, now.ino) == (seen.dev, seen.ino)\n\n\ndef _is_in_the_way",
    ),
    Mutant(
        "a replayed request is applied anew",
        "sync_workers/decide.py",
        "        if last is None or submission.request.number > last.number:",
        "        if last is None or submission.request.number >= last.number:",
    ),
    Mutant(
        "what cannot be read is taken for deleted",
        "agent/scan.py",
        "        self._problem(path, UNREADABLE, error.strerror or str(error))\n        self._keep(path)",
        "        self._problem(path, UNREADABLE, error.strerror or str(error))\n        self.complete[path] = None",
    ),
    Mutant(
        "the merge base does not learn of a move",
        "agent/replica.py",
        "    place = remote if remote.place == local.place else synced",
        "    place = synced",
    ),
    Mutant(
        "a directory moves into its own subtree",
        "agent/plan.py",
        "        while self._undo_cycles_once():",
        "        while False and self._undo_cycles_once():",
    ),
    Mutant(
        "what was read is not made durable before it is told of",
        "agent/hashing.py",
        "        if sync:\n            sync_fd(fd)",
        "        if sync:\n            pass",
    ),
    Mutant(
        "names that were placed are not made durable",
        "agent/place.py",
        "        self.root.sync(self.touched)",
        "        self.touched.clear()",
    ),
    Mutant(
        "other content is staged for what is being placed",
        "agent/fetch.py",
        "change.node_id not in self._busy | self._replica.placing",
        "change.node_id not in self._busy",
    ),
    Mutant(
        "the intent is not written down",
        "agent/fetch.py",
        '        batch.columns["intent"] = replica.intent\n',
        "",
    ),
    Mutant(
        "a notice is believed though it does not chain on",
        "agent/receive.py",
        "            while (entry := self._early.pop(cursor.seq + len(entries) + 1, None)) is not None:",
        "            while (entry := self._early.pop(min(self._early, default=0), None)) is not None:",
    ),
    Mutant(
        "an edit loses against a deletion",
        "agent/plan.py",
        "        return local if local.content != synced.content else None",
        "        return None",
    ),
)


def main() -> int:
    """Try each, and say which live."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="words of the mutants to try (default: all)")
    parser.add_argument("--runs", type=int, default=2_000, help="at most so many for each")
    options = parser.parse_args()
    living = 0
    for mutant in MUTANTS:
        if options.names and not any(word in mutant.name for word in options.names):
            continue
        killed = try_mutant(mutant, options.runs)
        living += killed is None
        print(f"{'lives' if killed is None else f'killed by run {killed}':>20}  {mutant.name}", flush=True)
    print(f"mutants={len(MUTANTS)} living={living}")
    return 1 if living else 0


def try_mutant(mutant: Mutant, runs: int) -> int | None:
    """The number of the run that kills a mutant, counted from 1; None when none does."""
    with tempfile.TemporaryDirectory(prefix="hutch-mutant-") as folder:
        for package in PACKAGES:
            shutil.copytree(
                CHECKOUT / package, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        path = Path(folder) / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.file} does not have the text of the mutant {mutant.name!r} just once")
        path.write_text(text.replace(mutant.old, mutant.new))
        code = (
            "import sys; sys.path.insert(0, '.')\n"
            "from tests.simulation.__main__ import run_seed\n"
            f"print(next((n for n in range(1, {runs} + 1) if not run_seed(n).is_good), 0))\n"
        )
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise SystemExit(f"{mutant.name}: {ended.stderr[-2000:]}")
        return int(ended.stdout) or None


if __name__ == "__main__":
    sys.exit(main())

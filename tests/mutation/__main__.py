"""`python -m tests.mutation [--mutants 300] [--seed S]`: do the tests notice when the program is changed at random?

A seed takes mutants of the planner, the applier and the commit's decision. Each is tried in a copy of the checkout:
first the unit tests of its module, then simulated runs, until something notices. Lists those that live, with the reason
where there is one, and ends with a line of counts, and with 1 when fewer than nine in ten were killed, or one lives
without a reason. With `--results FILE` what was found is kept, and a later call goes on from there.
"""

import argparse
import hashlib
import os
import queue
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

import msgspec

from tests.mutation.equal import excuse_of
from tests.mutation.mutate import Mutant, describe, list_mutants
from tests.mutation.trial import CHECKOUT, UNIT, Copy, Result

GOAL: Final = 0.9


class Kept(msgspec.Struct):
    """A line of the file of results. It holds for the module's text that it was found with."""

    text: str
    result: Result


def main() -> int:
    """Try mutants, and say what became of them."""
    options = _parse()
    chosen = choose(options.mutants, options.seed, options.files)
    kept = {result.mutant: result for result in _read(options.results)}
    if options.again:
        kept = {m: r for m, r in kept.items() if r.killed_by is not None or excuse_of(m) is not None}
    done = {m: r for m, r in kept.items() if r.killed_by is not None or r.runs >= options.runs}
    results = [done[mutant] for mutant in chosen if mutant in done]
    left = [mutant for mutant in chosen if mutant not in done]
    print(f"{len(results)} of {len(chosen)} are known already", file=sys.stderr, flush=True)
    for result in _try_all(left, kept, options):
        results.append(result)
        _keep(options.results, result)
        verdict = f"killed by {result.by}" if result.killed_by else "LIVES"
        print(
            f"{len(results)}/{len(chosen)} {verdict}: {next(describe(result.mutant))}",
            file=sys.stderr,
            flush=True,
        )
    return _tell(results, options)


def choose(count: int, seed: int, files: Iterable[str] = ()) -> list[Mutant]:
    """Which mutants a seed stands for. A larger count of the same seed has those of a smaller one first."""
    chosen = [file for file in UNIT if not files or file in files]
    mutants = [m for file in chosen for m in list_mutants(file, (CHECKOUT / file).read_text())]
    random.Random(seed).shuffle(mutants)
    return mutants[:count]


def _try_all(
    mutants: Sequence[Mutant], kept: Mapping[Mutant, Result], options: argparse.Namespace
) -> Iterable[Result]:
    if not mutants:
        return
    with tempfile.TemporaryDirectory(prefix="hutch-mutation-") as folder:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(options.jobs):
            copies.put(Copy(Path(folder, str(number))))

        def try_one(mutant: Mutant) -> Result:
            copy = copies.get()
            try:
                return copy.try_mutant(mutant, options.first_run, options.runs, kept.get(mutant))
            finally:
                copies.put(copy)

        def check(file: str) -> None:
            copy = copies.get()
            try:
                copy.check(file)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(options.jobs) as pool:
            sound = {UNIT[mutant.file] for mutant, result in kept.items() if result.killed_by is None}
            tests = {UNIT[mutant.file]: mutant.file for mutant in mutants}
            list(pool.map(check, [file for files, file in tests.items() if files not in sound]))
            futures = [pool.submit(try_one, mutant) for mutant in mutants]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _tell(results: Sequence[Result], options: argparse.Namespace) -> int:
    living = sorted(
        (r for r in results if r.killed_by is None), key=lambda r: (r.mutant.file, r.mutant.start)
    )
    excuses = [excuse_of(result.mutant) for result in living]
    for result, excuse in zip(living, excuses, strict=True):
        print(*describe(result.mutant), f"    {excuse or 'NO REASON KNOWN'}", sep="\n")
    for file in UNIT:
        of_file = [result for result in results if result.mutant.file == file]
        lives = sum(result.killed_by is None for result in of_file)
        print(f"{file}: mutants={len(of_file)} living={lives}")
    counts = Counter(result.killed_by or "living" for result in results)
    killed = len(results) - counts["living"]
    rate = killed / max(1, len(results))
    told = " ".join(f"{name}={counts[name]}" for name in ("unit", "simulation", "hang", "living"))
    print(
        f"seed={options.seed} runs={options.runs} mutants={len(results)} killed={killed} {told}"
        f" without_reason={excuses.count(None)} rate={rate:.3f}"
    )
    return 1 if rate < GOAL or None in excuses else 0


def _read(path: Path | None) -> Iterable[Result]:
    if path is None or not path.exists():
        return
    for line in path.read_bytes().splitlines():
        kept = msgspec.json.decode(line, type=Kept)
        if kept.text == _digest(kept.result.mutant.file):
            yield kept.result


def _keep(path: Path | None, result: Result) -> None:
    if path is not None:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(Kept(_digest(result.mutant.file), result)) + b"\n")


def _digest(file: str) -> str:
    return hashlib.sha256((CHECKOUT / file).read_bytes()).hexdigest()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mutants", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="which")
    parser.add_argument("--runs", type=int, default=2_000, help="simulated runs for each, at most")
    parser.add_argument("--first-run", type=int, default=1, help="the first simulated run's seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--results", type=Path, help="a file of JSON lines, outside of the checkout")
    parser.add_argument(
        "--again", action="store_true", help="try those anew that live without a reason: there are new tests"
    )
    parser.add_argument("--files", nargs="*", default=(), choices=list(UNIT), help="these modules alone")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

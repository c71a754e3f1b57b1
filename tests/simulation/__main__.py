"""`python -m tests.simulation --runs N [--seed S]`: many runs, with progress, counts at the end, and 1 when a promise was broken."""

import argparse
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from typing import Final

from tests.simulation.rows import list_rows
from tests.simulation.run import Options, Verdict, simulate
from tests.simulation.shrink import shrink
from tests.simulation.sites import list_sites

SHOWN: Final = 5
TRAPS: Final = 5
"""At how many places of the engine each run cuts agents off, when they come there."""

PROGRESS_EVERY_S: Final = 5.0


def main() -> int:
    """Run, and say what came of it."""
    warnings.simplefilter("ignore", RuntimeWarning)  # what is cut off was not awaited
    if os.environ.get("PYTHONHASHSEED") != "0":  # a seed replays a run exactly only with equal hashes
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    options = _parse()
    began = time.monotonic()
    tally = Tally()
    with multiprocessing.Pool(options.jobs, maxtasksperchild=200) as pool:
        told = began
        for verdict in pool.imap_unordered(run_seed, range(options.seed, options.seed + options.runs), 4):
            tally.add(verdict)
            if time.monotonic() - told > PROGRESS_EVERY_S:
                told = time.monotonic()
                print(
                    f"{tally.runs} of {options.runs} runs, {len(tally.bad)} bad", file=sys.stderr, flush=True
                )
    for verdict in tally.bad[:SHOWN]:
        _show(verdict)
    if options.places:
        print(f"places met fewer than ten times: {tally.rarely_met()}")
        print(f"rows of the planner's table never met: {tally.never_met()}")
    print(tally.line(time.monotonic() - began))
    return 1 if tally.bad else 0


def run_seed(seed: int) -> Verdict:
    """One run."""
    return simulate(options_of(seed))


def options_of(seed: int) -> Options:
    """What a seed stands for. Its number also says at which places in the engine agents are cut off: each in its turn."""
    sites = list_sites()
    return Options(seed=seed, sites=tuple(sites[(seed * TRAPS + k) % len(sites)] for k in range(TRAPS)))


class Tally:
    """The counts of many runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.sums: Counter[str] = Counter()
        self.sites: Counter[tuple[str, int]] = Counter()
        self.rows: Counter[str] = Counter()
        self.bad: list[Verdict] = []

    def add(self, verdict: Verdict) -> None:
        """Count one run in."""
        self.runs += 1
        for name in ("operations", "crashes", "disconnects", "doubled"):
            self.sums[name] += getattr(verdict, name)
        for name in ("lost", "diverged", "conflicts_unexplained", "torn", "broken"):
            self.sums[name] += bool(getattr(verdict, name))
        self.sites.update(verdict.crashed_at)
        self.rows.update(verdict.rows)
        if not verdict.is_good:
            self.bad.append(verdict)

    def line(self, duration_s: float) -> str:
        """`runs=… lost=… diverged=… conflicts_unexplained=…`, and what else was counted."""
        names = ("lost", "diverged", "conflicts_unexplained", "torn", "broken")
        more = ("operations", "crashes", "disconnects", "doubled")
        counts = " ".join(f"{name}={self.sums[name]}" for name in (*names, *more))
        sites = list_sites()
        tenfold = sum(self.sites[site] >= 10 for site in sites)
        met = sum(self.sites[site] > 0 for site in sites)
        rows = list_rows()
        rows_met = sum(self.rows[row] > 0 for row in rows)
        return (
            f"runs={self.runs} {counts} sites={len(sites)} sites_met={met} sites_met_10={tenfold}"
            f" rows={len(rows)} rows_met={rows_met} duration_s={duration_s:.0f}"
        )

    def rarely_met(self) -> str:
        """The places in the engine where fewer than ten crashes found anybody."""
        return " ".join(f"{site.file}:{site.line}" for site in list_sites() if self.sites[site] < 10)

    def never_met(self) -> str:
        """The rows of the planner's table that no node was ever in."""
        return "; ".join(row for row in list_rows() if not self.rows[row])


def _show(verdict: Verdict) -> None:
    small = shrink(options_of(verdict.seed))
    print(f"\nseed {verdict.seed}: the fewest steps that still break a promise:")
    for line in small.log:
        print(f"  {line}")
    for name in ("lost", "diverged", "conflicts_unexplained", "torn", "broken"):
        for what in getattr(small, name)[:SHOWN]:
            print(f"  {name}: {what}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="how many runs (default: 300)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the first run's seed; the others count on from it"
    )
    parser.add_argument(
        "--places",
        action="store_true",
        help="list the places that too few crashes have met, and the planner's rows that nothing has",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many processes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

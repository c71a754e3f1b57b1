"""One mutant at a time, in a private copy of the checkout: first the unit tests of its module, then simulated runs."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from tests.mutation.mutate import Mutant

CHECKOUT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("agent", "broker", "metadata", "sync_workers", "block_gateway", "deploy", "tests")

_COMMIT: Final = (
    ("tests/unit/sync_workers/test_decide.py",),
    ("tests/unit/sync_workers/test_properties.py", "tests/unit/sync_workers/test_batch.py"),
)
UNIT: Final = {
    "agent/plan.py": (
        ("tests/unit/agent/test_plan.py",),
        tuple(f"tests/unit/agent/test_plan_{which}.py" for which in ("rings", "cases", "random")),
    ),
    "agent/place.py": (("tests/unit/agent/test_place.py",),),
    "sync_workers/decide.py": _COMMIT,
    "sync_workers/commit.py": _COMMIT,
    "sync_workers/tree.py": _COMMIT,
    "sync_workers/content.py": _COMMIT,
    "sync_workers/admission.py": _COMMIT,
    "metadata/gather.py": _COMMIT,
}
"""The planner, the applier and the commit's decision, and the tests of each: first those that notice most."""

UNIT_LIMIT_S: Final = 200
RUN_LIMIT_S: Final = 60
"""Of processor time, for the tests of a module and for one simulated run: a busy machine makes no mutant hang."""

_WITHOUT: Final = ("-p", "no:cacheprovider", "-p", "no:xdist")
_TESTS_FAILED: Final = (1, 2)
"""pytest's exit codes for tests that fail, and for modules that cannot even be imported."""

_RUNS: Final = """
import signal, sys
sys.path.insert(0, ".")
from tests.simulation.__main__ import run_seed
first, last, limit_s = map(int, sys.argv[1:])
for seed in range(first, last + 1):
    print(seed, flush=True)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    if not run_seed(seed).is_good:
        print("bad", flush=True)
        break
"""


class Result(Struct):
    """What became of a mutant.

    Attributes:
        killed_by: `unit`, `simulation`, or `hang` (it came to no end); None: it lives.
        by: The test, or the run's number counted from 1, that noticed.
        runs: How many simulated runs it has seen.
    """

    mutant: Mutant
    killed_by: str | None
    by: str
    runs: int
    duration_s: float


class Copy:
    """A private copy of the checkout, for one mutant after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in PACKAGES:
            shutil.copytree(
                CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        for name in ("pyproject.toml",):
            shutil.copy(CHECKOUT / name, folder / name)
        self._stamp = 0

    def try_mutant(self, mutant: Mutant, first: int, runs: int, before: Result | None) -> Result:
        """Run tests, then simulated runs, until one of them notices.

        Args:
            mutant: Which.
            first: The first simulated run's seed.
            runs: At most so many.
            before: It lived through an earlier trial, which is gone on with.
        """
        began = time.monotonic()
        path = self.folder / mutant.file
        whole = path.read_text()
        seen = 0 if before is None else before.runs
        self._write(path, mutant.apply(whole))
        try:
            killed_by, by = self._unit(mutant.file) if before is None else (None, "")
            if killed_by is None and runs > seen:
                killed_by, by, seen = self._simulate(first, seen, runs)
        finally:
            self._write(path, whole)
        if killed_by == "simulation" and self._simulate(first, seen - 1, seen)[0] is not None:
            raise SystemExit(f"the simulated run {first + seen - 1} is bad without any mutant")
        return Result(mutant, killed_by, by, seen, round(time.monotonic() - began, 1))

    def check(self, file: str) -> None:
        """Raise `SystemExit` when the tests of a module fail without any mutant."""
        if self._unit(file)[0] is not None:
            raise SystemExit(f"the tests of {file} fail without any mutant")

    def _write(self, path: Path, text: str) -> None:
        """A time of its own for each: compiled modules are told apart by that, in whole seconds, and by their size."""
        path.write_text(text)
        self._stamp += 1
        os.utime(path, (self._stamp, self._stamp))

    def _unit(self, file: str) -> tuple[str | None, str]:
        for tests in UNIT[file]:
            killed_by, by = self._pytest(tests)
            if killed_by is not None:
                return killed_by, by
        return None, ""

    def _pytest(self, tests: Sequence[str]) -> tuple[str | None, str]:
        shutil.rmtree(
            self.folder / ".hypothesis", ignore_errors=True
        )  # what one has found is not shown to the next
        options = ["-x", "-q", "--tb=no", "--noconftest", "--hypothesis-seed=0", "--timeout=0", *_WITHOUT]
        ended = self._python("-m", "pytest", *options, *tests, limit_s=UNIT_LIMIT_S)
        if ended.returncode == -signal.SIGXCPU:
            return "hang", "unit tests"
        if ended.returncode == 0:
            return None, ""
        if ended.returncode not in _TESTS_FAILED:
            raise SystemExit(f"pytest has ended with {ended.returncode}: {ended.stdout[-500:]}")
        failed = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return "unit", failed[0].split(" - ")[0].partition(" ")[2] if failed else "import"

    def _simulate(self, first: int, seen: int, runs: int) -> tuple[str | None, str, int]:
        """From the run after the `seen`th to the `runs`th; what killed it, by what, and how many runs there were."""
        seeds = (str(first + seen), str(first + runs - 1), str(RUN_LIMIT_S))
        ended = self._python("-W", "ignore", "-c", _RUNS, *seeds)
        *begun, last = ended.stdout.split() or [""]
        if last == "bad":
            return "simulation", f"run {seen + len(begun)}", seen + len(begun)
        at = seen + len(begun) + 1
        if ended.returncode == -signal.SIGPROF:
            return "hang", f"run {at}", at
        if ended.returncode == 1:  # an exception that the simulation does not take for the engine's own
            return "simulation", f"run {at}", at
        if ended.returncode != 0:
            raise SystemExit(f"the simulated run {first + at - 1} has ended with {ended.returncode}")
        return None, "", runs

    def _python(self, *arguments: str, limit_s: int | None = None) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            if limit_s is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 10))

        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
            preexec_fn=limit,
        )

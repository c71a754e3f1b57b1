"""The promises, over some hundreds of runs; and that a seed is a run, and a broken promise is found."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.disk import Disk
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import Verdict

CHECKOUT = Path(__file__).parents[2]
RUNS, AT_ONCE = 300, 20


@pytest.mark.parametrize("seed", range(0, RUNS, AT_ONCE))
def test_no_run_breaks_a_promise(seed: int) -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.simulation",
            "--runs",
            str(AT_ONCE),
            "--seed",
            str(seed),
            "--jobs",
            "1",
        ],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )
    told = ended.stdout
    counts = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", told)}
    assert ended.returncode == 0, told + ended.stderr
    assert counts["runs"] == AT_ONCE
    assert counts["operations"] >= 40 * AT_ONCE
    assert min(counts[name] for name in ("crashes", "disconnects", "doubled")) >= AT_ONCE
    broken = {name: counts[name] for name in ("lost", "diverged", "conflicts_unexplained", "torn", "broken")}
    assert not any(broken.values()), broken


def test_a_seed_is_a_run() -> None:
    code = (
        "import sys; from tests.simulation.__main__ import run_seed\n"
        "verdict = run_seed(int(sys.argv[1]))\n"
        "print(verdict.log, sorted(verdict.rows.items()))\n"
    )
    logs = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, "11"],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    }
    assert len(logs) == 1
    log = logs.pop()
    assert "crashes" in log
    assert "file: remote unchanged, local unread" in log


def test_a_verdict_with_anything_in_it_is_not_good() -> None:
    assert Verdict(seed=0).is_good
    for name in ("lost", "diverged", "conflicts_unexplained", "torn", "broken"):
        verdict = Verdict(seed=0)
        setattr(verdict, name, ["something"])
        assert not verdict.is_good


def test_each_rule_that_a_mutant_takes_away_is_there_once() -> None:
    found = {mutant.name: (CHECKOUT / mutant.file).read_text().count(mutant.old) for mutant in MUTANTS}
    assert found == dict.fromkeys(found, 1)


def test_a_lost_edit_is_found() -> None:
    """The engine forgets one thing: to look whether the file that it replaces is still the one that it knew."""
    code = (
        "from unittest import mock\n"
        "from agent.index import Print\n"
        "from tests.simulation.__main__ import run_seed\n"
        "with mock.patch.object(Print, 'same_file', lambda self, other: True):\n"
        "    with mock.patch.object(Print, 'same_content', lambda self, other: (self.dev, self.ino) == (other.dev, other.ino)):\n"
        "        print(any(not run_seed(seed).is_good for seed in range(8)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "True\n"


def test_a_power_cut_takes_what_was_not_made_durable_and_nothing_else() -> None:
    lost = 0
    for seed in range(50):
        disk = Disk("ada", random.Random(seed), lambda: 0, lambda folder, path: None, True)
        disk.hands.mkdir("kept")
        disk.hands.write("kept/durable", b"durable")
        disk.hands.sync("kept/durable")
        disk.hands.write("loose", b"loose")
        disk.hands.rename("kept/durable", "kept/renamed")
        disk.crash()
        tree = disk.hands.describe()
        kept = [entry[-1] for path, entry in tree.items() if path.startswith("kept/")]
        assert kept == [b"durable"]
        lost += tree.get("loose", ("", b""))[-1] != b"loose"
    assert 0 < lost < 50

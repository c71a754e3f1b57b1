"""What a large tree costs: at the start, in memory, for one saved file, and for a device that was away.

    python -m tests.bench.size [--files 200000] [--saves 20]

Starts a private service and two devices, and grows one tree in three steps: nothing, a tenth of the files, all of them
(small ones, ten to a directory). At each step it prints

- how long a saved file takes to the other device (median);
- how long 100 saved files take to a device that slept meanwhile, and 1 and 100 to one that was ended and is started;
- what a start with nothing changed takes: the database opened, the trees loaded, everything looked at once. Beside it a bare
  `os.walk` that asks `lstat` of everything, in the same process, and the ratio of the two, of wall time and of CPU time;
- the highest resident memory (the kernel's VmHWM) of the agents since the tree grew, and of those started since.

The goals for 200,000 files: a ratio close to 1, an agent below 300 MB, all else as with no files.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.folder import Folder
from agent.home import FolderRecord, Home
from agent.index import Index
from agent.service import Service
from agent.transfer import Transfer
from broker.connection import BrokerAddress, Publisher
from tests.bench.agent_memory import peak_mb, pid_of
from tests.e2e.device import Device, Pair
from tests.e2e.stack import running_stack

TIMEOUT_S = 3_600.0
CHANGES = 100
_A_DIRECTORY = 10
_STARTS = 5
_TIMES = 3


# --- a start, in a process of its own


def walk(folder: str) -> int:
    """A bare look at everything."""
    count = 0
    for directory, names, files in os.walk(folder):
        for name in (*names, *files):
            os.lstat(os.path.join(directory, name))
            count += 1
    return count


async def look_at_all(home: Home, record: FolderRecord) -> int:
    """What an agent does at its start, up to the end of its first look. Returns how many nodes it knows."""
    credential = home.linked()
    index = await asyncio.to_thread(Index, home.index_path)
    try:
        await index.drop_unused_manifests(share=1.0)
        may_run = asyncio.Event()
        nobody = BrokerAddress(url="amqp://localhost", user="nobody", password="")
        folder = await Folder.open(
            record,
            credential,
            index,
            transfer=Transfer(credential.gateway_url, ""),
            service=Service(credential.metadata_url, "", None),
            publisher=Publisher(nobody, user_id="nobody"),
            may_run=may_run,
        )
        folder.looker.hint("", deep=True)
        await folder.looker.look_now()
        if not folder.replica.looked or folder.replica.trees.unread:
            raise AssertionError("something has changed: this is no start with nothing changed")
        return len(folder.replica.trees.local)
    finally:
        await index.close()


def timed(work: Callable[[], int]) -> tuple[float, float, int]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    count = work()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s, count


def start_once(path: str) -> None:
    home = Home(Path(path), Path(path))
    record = home.folders()[0]
    walk(record.folder)  # so that the kernel knows everything, for both
    walk_s, walk_cpu_s, _ = timed(lambda: walk(record.folder))
    start_s, start_cpu_s, nodes = timed(lambda: asyncio.run(look_at_all(home, record)))
    figures = {"walk_s": walk_s, "start_s": start_s, "walk_cpu_s": walk_cpu_s, "start_cpu_s": start_cpu_s}
    print(json.dumps({**figures, "peak_mb": peak_mb(os.getpid()), "nodes": nodes}))


def measure_start(device: Device) -> dict[str, float]:
    """Medians of some starts of an ended device."""
    said = []
    for _ in range(_STARTS):
        command = [sys.executable, "-m", "tests.bench.size", "--start", str(device.home)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        said.append(json.loads(done.stdout))
    return {name: statistics.median(each[name] for each in said) for name in said[0]}


# --- two devices


def rest(*devices: Device) -> None:
    """Wait until all is synced."""
    until = time.monotonic() + TIMEOUT_S
    for device in devices:
        while not device.wait(300):
            device.check()
            if time.monotonic() > until:
                raise TimeoutError("nothing comes to rest")


def grow(folder: Path, count: int, size: int) -> None:
    for number in range(count, size):
        place = folder / f"part {number // 2_000:03d}" / f"directory {number // _A_DIRECTORY:05d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"document {number}.txt").write_text(f"what document {number} says\n")


def save(pair: Pair, count: int) -> dict[Path, bytes]:
    """Save some files by the laptop. Returns what shall be where on the desktop."""
    wanted = {}
    for number in range(count):
        content = random.randbytes(1_000)
        pair.laptop.write(f"saved/{number}.bin", content)
        wanted[pair.desktop.folder / f"saved/{number}.bin"] = content
    return wanted


def seconds_until(wanted: dict[Path, bytes], began: float) -> float:
    waiting = dict(wanted)
    while waiting:
        for path in [path for path, content in waiting.items() if _holds(path, content)]:
            del waiting[path]
        if time.perf_counter() - began > TIMEOUT_S:
            raise TimeoutError("what was saved has not arrived")
        time.sleep(0.001)  # noqa: TID251  # the resolution of what is measured
    return time.perf_counter() - began


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def measure_save(pair: Pair) -> float:
    began = time.perf_counter()
    took_s = seconds_until(save(pair, 1), began)
    rest(pair.laptop, pair.desktop)
    return took_s


def measure_asleep(pair: Pair) -> float:
    """From the moment a device goes on that was stopped while much was saved."""
    os.kill(pid_of(pair.desktop), signal.SIGSTOP)
    try:
        wanted = save(pair, CHANGES)
        rest(pair.laptop)
    finally:
        began = time.perf_counter()
        os.kill(pid_of(pair.desktop), signal.SIGCONT)
    took_s = seconds_until(wanted, began)
    rest(pair.laptop, pair.desktop)
    return took_s


def measure_ended(pair: Pair, count: int) -> float:
    """From the start of a device that was ended while something was saved."""
    pair.desktop.end()
    wanted = save(pair, count)
    rest(pair.laptop)
    began = time.perf_counter()
    pair.desktop.start()
    took_s = seconds_until(wanted, began)
    rest(pair.laptop, pair.desktop)
    return took_s


def measure(pair: Pair, saves: int) -> dict[str, Any]:
    def median_ms(name: str, work: Callable[[], float], times: int) -> float:
        took_ms = [1000 * work() for _ in range(times)]
        print(f"{name}: {[round(each) for each in took_ms]}", file=sys.stderr, flush=True)
        return statistics.median(took_ms)

    grown = {
        "peak_sending_mb": peak_mb(pid_of(pair.laptop)),
        "peak_receiving_mb": peak_mb(pid_of(pair.desktop)),
    }
    for device in pair.laptop, pair.desktop:
        device.end()
    start = measure_start(pair.laptop)
    for device in pair.laptop, pair.desktop:
        device.start()
    rest(pair.laptop, pair.desktop)
    save(pair, CHANGES)
    rest(pair.laptop, pair.desktop)
    return {
        **grown,
        **start,
        "wall_ratio": start["start_s"] / start["walk_s"],
        "cpu_ratio": start["start_cpu_s"] / start["walk_cpu_s"],
        "save_ms": median_ms("save", lambda: measure_save(pair), saves),
        "asleep_100_ms": median_ms("asleep", lambda: measure_asleep(pair), _TIMES),
        "ended_1_ms": median_ms("ended, 1", lambda: measure_ended(pair, 1), _TIMES),
        "ended_100_ms": median_ms("ended, 100", lambda: measure_ended(pair, CHANGES), _TIMES),
        "peak_restarted_mb": max(peak_mb(pid_of(device)) for device in pair[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--start", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start_once(options.start)
        return
    with running_stack() as stack:
        pair = stack.add_pair()
        rest(pair.laptop, pair.desktop)
        count = 0
        for size in (0, options.files // 10, options.files):
            began = time.perf_counter()
            grow(pair.laptop.folder, count, size)
            rest(pair.laptop, pair.desktop)
            grown_s = time.perf_counter() - began
            count = size
            figures = {"files": size, "grown_s": grown_s, **measure(pair, options.saves)}
            print(json.dumps({name: round(value, 2) for name, value in figures.items()}), flush=True)
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

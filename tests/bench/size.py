"""What a large tree costs: at the start, in memory, for one saved file, and for a device that was away.

    python -m tests.bench.size [--files 200000] [--saves 20]
    python -m tests.bench.size --alone [--files 200000]

Starts a private service and two devices, and grows one tree in three steps: nothing, a tenth of the files, all of them
(small ones, ten to a directory). At each step it prints

- how long a saved file takes to the other device (median);
- how long 100 saved files take to a device that slept meanwhile, and 1 and 100 to one that was ended and is started;
- what a start with nothing changed takes: the database opened, the trees loaded, everything looked at once. Beside it a bare
  `os.walk` that asks `lstat` of everything, in the same process, and the ratio of the two, of wall time and of CPU time;
- the highest resident memory (the kernel's VmHWM) of the agents since the tree grew, and of those started since.

With `--alone` there is no service: one device's database is made up, with everything agreed on, and only its starts are measured.

The goals for 200,000 files: a ratio close to 1, an agent below 300 MB, all else as with no files.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from agent.engine import mark_folder
from agent.filesystem import Root
from agent.folder import Folder, new_node_id
from agent.home import Credential, FolderRecord, Home
from agent.index import Batch, Index, Prints, cursor_columns
from agent.scan import scan
from agent.service import Service
from agent.transfer import Transfer
from agent.trees import Tree, replace
from broker.connection import BrokerAddress, Publisher
from broker.model import Chunk, Cursor, FullContent, Kind, manifest_digest
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


async def make_up(base: Path, files: int) -> Path:
    """A device's home and folder as they are when all is synced, without a service. Returns the home."""
    home = Home(base / "home", base / "home")
    home.root.mkdir()
    folder = base / "folder"
    folder.mkdir()
    grow(folder, 0, files)
    home.save_credential(
        Credential(
            device_id=uuid4(), device_secret="", user_id=uuid4(), email="", device_name="laptop", metadata_url="",
            gateway_url="", amqp_url="", amqp_password="", queue="",
        )
    )  # fmt: skip
    record = FolderRecord(folder=str(folder), workspace_id=uuid4(), name="home")
    mark_folder(home, home.linked(), record)
    home.add_folder(record)
    root = Root(folder)
    sight = await asyncio.to_thread(scan, root, Tree(), Prints(), {"": True}, new_node_id)
    root.close()
    batch = Batch()
    batch.prints.update(sight.prints)
    for node_id, node in sight.local.items():
        assert node is not None
        if node.kind is Kind.FILE:
            chunk = Chunk(hashlib.sha256(node_id.bytes).digest(), node.size)
            content = FullContent(16, (chunk,))
            node = replace(node, digest=manifest_digest(content.chunks))
            batch.manifests[node.digest] = content
        batch.local[node_id] = node
        batch.remote[node_id] = batch.synced[node_id] = replace(node, version=1 + len(batch.remote) // 4_000)
    batch.columns.update(cursor_columns(Cursor(1, 1 + len(batch.remote) // 4_000, bytes(32))), generation=1)
    index = Index(home.index_path)
    state, _ = await index.load(record.workspace_id)
    await index.write(state.key, batch)
    await index.close()
    await look_at_all(home, record)  # by the rules of what to ignore, for the first time
    return home.root


def measure_start(home: Path) -> dict[str, float]:
    """Medians of some starts of a device whose agent does not run."""
    said = []
    for _ in range(_STARTS):
        command = [sys.executable, "-m", "tests.bench.size", "--start", str(home)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        said.append(json.loads(done.stdout))
    return {name: statistics.median(each[name] for each in said) for name in said[0]}


def ratios(start: dict[str, float]) -> dict[str, float]:
    ratios = {name: start[f"start{name}_s"] / start[f"walk{name}_s"] for name in ("", "_cpu")}
    return {**start, "wall_ratio": ratios[""], "cpu_ratio": ratios["_cpu"]}


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
    start = measure_start(pair.laptop.home)
    for device in pair.laptop, pair.desktop:
        device.start()
    rest(pair.laptop, pair.desktop)
    save(pair, CHANGES)
    rest(pair.laptop, pair.desktop)
    return {
        **grown,
        **ratios(start),
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
    parser.add_argument("--alone", action="store_true", help="without a service: starts alone")
    parser.add_argument("--start", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start_once(options.start)
        return
    if options.alone:
        with tempfile.TemporaryDirectory(prefix="hutch bench ") as base:
            start = measure_start(asyncio.run(make_up(Path(base), options.files)))
            print(json.dumps({"files": options.files, **ratios(start)}))
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

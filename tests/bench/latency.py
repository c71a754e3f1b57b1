"""How long a saved file takes to be visible on the other device: the whole way, on an idle system.

    python -m tests.bench.latency [--saves 30] [--bytes 1000000]

Starts a private service and two devices. Each save writes a new content to one file by one device, and ends when the
other device's file holds it. Prints the median and the 95th percentile. The goal for the median is 250 ms.
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

from tests.e2e.device import Pair
from tests.e2e.stack import running_stack, settle

TIMEOUT_S = 60.0


def save(pair: Pair, content: bytes) -> float:
    """Save one content, and return how many seconds passed until the other device had it."""
    source, target = (device.folder / "report.bin" for device in (pair.laptop, pair.desktop))
    before = inode(target)
    began = time.perf_counter()
    source.write_bytes(content)
    # A file is placed by a rename, whole: a new inode is a new content.
    while inode(target) == before:
        if time.perf_counter() - began > TIMEOUT_S:
            raise TimeoutError("the save has not arrived")
        time.sleep(0.001)  # noqa: TID251  # the resolution of what is measured
    took = time.perf_counter() - began
    assert target.read_bytes() == content
    return took


def inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def measure(pair: Pair, saves: int, size_bytes: int) -> list[float]:
    """The seconds that each save took, from when both devices were at rest."""
    took = []
    for _ in range(saves):
        settle(pair.laptop, pair.desktop, timeout_s=TIMEOUT_S)
        took.append(save(pair, random.randbytes(size_bytes)))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--saves", type=int, default=30)
    parser.add_argument("--bytes", type=int, default=1_000_000)
    options = parser.parse_args()
    with running_stack() as stack:
        pair = stack.add_pair()
        measure(pair, 2, options.bytes)
        took_ms = [1000 * each for each in measure(pair, options.saves, options.bytes)]
    print(f"{options.saves} saves of {options.bytes} bytes, load {os.getloadavg()[0]:.1f}:")
    print(json.dumps([round(each) for each in took_ms]))
    print(f"median {statistics.median(took_ms):.0f} ms")
    print(f"p95    {statistics.quantiles(took_ms, n=20)[-1]:.0f} ms")


if __name__ == "__main__":
    main()

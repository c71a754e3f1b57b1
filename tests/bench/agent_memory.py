"""How much memory two agents take while a large file goes up from one and down to the other.

    python -m tests.bench.agent_memory [--bytes 1000000000]

Starts a private service and two devices, and prints the highest resident memory of each agent (the kernel's VmHWM), at
rest and after the transfer, and of the block gateway. The goal for an agent is 200 MB.
"""

import argparse
import random
import time
from pathlib import Path

from tests.e2e.device import Device, Pair
from tests.e2e.stack import running_stack, settle

TIMEOUT_S = 390.0
_BLOCK_BYTES = 1_000_000


def peak_mb(pid: int) -> float:
    """The most that a process ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no memory")


def pid_of(device: Device) -> int:
    assert device.process is not None
    return device.process.pid


def peaks(pair: Pair) -> str:
    return f"sending {peak_mb(pid_of(pair.laptop)):.0f} MB, receiving {peak_mb(pid_of(pair.desktop)):.0f} MB"


def write_large(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        for at in range(0, size_bytes, _BLOCK_BYTES):
            file.write(random.randbytes(min(_BLOCK_BYTES, size_bytes - at)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    options = parser.parse_args()
    with running_stack() as stack:
        pair = stack.add_pair()
        settle(pair.laptop, pair.desktop, timeout_s=TIMEOUT_S)
        print(f"at rest:  {peaks(pair)}, gateway {peak_mb(stack.pid('gateway')):.0f} MB")
        began = time.monotonic()
        write_large(pair.laptop.folder / "large.bin", options.bytes)
        settle(pair.laptop, pair.desktop, timeout_s=TIMEOUT_S)
        took_s = time.monotonic() - began
        print(f"{options.bytes} bytes there in {took_s:.0f} s, {options.bytes / took_s / 1e6:.0f} MB/s")
        print(f"highest:  {peaks(pair)}, gateway {peak_mb(stack.pid('gateway')):.0f} MB")


if __name__ == "__main__":
    main()

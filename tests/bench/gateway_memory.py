"""How much memory the gateway, and an agent's transfers, take under eight large transfers at once.

    python -m tests.bench.gateway_memory [--megabytes 1024] [--transfers 8] [--store local|s3] [--repeats 1]

Starts its own PostgreSQL (and S3 server), a gateway process, and one process a transfer; prints each process's
highest resident memory and the rates. Nothing is asserted: read the figures. The goals are 250 MB for the gateway and
200 MB for an agent.
"""

import argparse
import asyncio
import hashlib
import json
import os
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp

from agent.transfer import Reader, Transfer
from broker.model import Chunk
from deploy.keep import Ports, Secrets
from deploy.servers import S3, Postgres
from metadata import database
from metadata.migrate import migrate
from tests.integration.block_gateway.cast import World, wait_until
from tests.servers.fixtures import PostgresServer
from tests.servers.running import kill_all, start_server

MB = 1024 * 1024
CHUNK_SIZE_BYTES = 1_200_000  # about what files of this size are cut into


def chunk_at(seed: str, number: int) -> bytes:
    """The same incompressible bytes each time, without keeping them."""
    return hashlib.shake_128(f"{seed} {number}".encode()).digest(CHUNK_SIZE_BYTES)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def transfer_once(url: str, credential: str, workspace: str, megabytes: int) -> None:
    """One agent's part: up, then down. Runs in a process of its own, and prints its figures."""
    workspace_id, seed = UUID(workspace), uuid4().hex
    count = megabytes * MB // CHUNK_SIZE_BYTES
    chunks: list[Chunk] = []

    async def source() -> AsyncIterator[tuple[Chunk, Reader]]:
        for number in range(count):
            raw = await asyncio.to_thread(chunk_at, seed, number)
            chunk = Chunk(hashlib.sha256(raw).digest(), len(raw))
            chunks.append(chunk)
            yield chunk, partial(chunk_at, seed, number)

    async with Transfer(url, credential) as transfer:
        begun = time.monotonic()
        stored = await transfer.upload(workspace_id, source(), lambda _: None)
        up_s = time.monotonic() - begun
        begun = time.monotonic()
        absent = await transfer.download(workspace_id, chunks, lambda chunk, raw: None, lambda _: None)
        down_s = time.monotonic() - begun
    assert len(stored) == count
    assert not absent
    print(json.dumps({"up_s": up_s, "down_s": down_s, "peak_mb": peak_mb()}))


async def run_transfers(world: World, url: str, megabytes: int, transfers: int) -> list[dict[str, float]]:
    processes = []
    for _ in range(transfers):
        device = await world.device()
        workspace_id = await world.workspace(device.user_id)
        arguments = ["--part", url, device.credential, str(workspace_id), "--megabytes", str(megabytes)]
        processes.append(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", __spec__.name, *arguments, stdout=asyncio.subprocess.PIPE
            )
        )
    said = await asyncio.gather(*(process.communicate() for process in processes))
    return [json.loads(out) for out, _ in said]


def memory_mb(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(field)


async def measure(folder: Path, store: str, megabytes: int, transfers: int) -> dict[str, float]:
    ports, secrets = Ports(folder), Secrets(folder)
    postgres = Postgres(folder, ports, secrets, durable=True)
    start_server(postgres, folder)
    dsn = await PostgresServer(postgres).create_database()
    await migrate(dsn)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{door.getsockname()[1]}"
    environment = {"HUTCH_POSTGRES_DSN": dsn, "HUTCH_GATEWAY_LISTEN": listen}
    environment |= store_settings(folder, store, ports, secrets)
    gateway = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "block_gateway",
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.DEVNULL,
    )
    pool = await database.connect(dsn)
    try:
        await wait_until(lambda: is_ready(f"http://{listen}/health/ready"))
        idle_mb = memory_mb(gateway.pid, "VmRSS")
        parts = await run_transfers(World(pool), f"http://{listen}", megabytes, transfers)
        peak = memory_mb(gateway.pid, "VmHWM")
    finally:
        await database.close(pool)
        gateway.kill()
        await gateway.wait()
    return {
        "gateway_idle_mb": idle_mb,
        "gateway_peak_mb": peak,
        "agent_peak_mb": max(part["peak_mb"] for part in parts),
        "up_mb_per_s": transfers * megabytes / max(part["up_s"] for part in parts),
        "down_mb_per_s": transfers * megabytes / max(part["down_s"] for part in parts),
    }


def store_settings(folder: Path, store: str, ports: Ports, secrets: Secrets) -> dict[str, str]:
    if store == "local":
        return {"HUTCH_GATEWAY_STORE": f"local:{folder / 'packs'}"}
    server = S3(folder, ports, secrets)
    start_server(server, folder)
    return {
        "HUTCH_GATEWAY_STORE": "s3:packs",
        "HUTCH_GATEWAY_S3_ENDPOINT": server.endpoint,
        "HUTCH_GATEWAY_S3_ACCESS_KEY": server.access_key,
        "HUTCH_GATEWAY_S3_SECRET_KEY": server.secret_key,
        "HUTCH_GATEWAY_S3_REGION": server.region,
    }


async def is_ready(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1024, help="of each transfer")
    parser.add_argument("--transfers", type=int, default=8, help="at once")
    parser.add_argument("--store", choices=["local", "s3"], default="local")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        url, credential, workspace = options.part
        await transfer_once(url, credential, workspace, options.megabytes)
        return
    figures: list[dict[str, float]] = []
    for _ in range(options.repeats):
        folder = Path(tempfile.mkdtemp(prefix="hutch bench "))
        try:
            figures.append(await measure(folder, options.store, options.megabytes, options.transfers))
        finally:
            kill_all(folder)
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(figures[-1]))
    medians = {name: round(statistics.median(each[name] for each in figures), 1) for name in figures[0]}
    print(
        f"{options.transfers} transfers of {options.megabytes} MB, {options.store} store; medians of {len(figures)}:"
    )
    for name, value in medians.items():
        print(f"  {name:18} {value:8.1f}")


if __name__ == "__main__":
    asyncio.run(main())

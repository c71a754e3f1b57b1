"""The gateway as a process: started by its settings, killed at the worst instant, stopped politely, over TLS."""

import asyncio
import os
import random
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.transfer import Transfer
from block_gateway.stores.local import LocalStore
from block_gateway.wire import Codec, unpack_frame
from broker.errors import Unavailable
from broker.model import Chunk
from tests.integration.block_gateway.cast import Caller, World, frame_of, sha, wait_until

CHECKOUT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def settings(dsn: str, store: Path, port: int) -> dict[str, str]:
    return {
        "HUTCH_POSTGRES_DSN": dsn,
        "HUTCH_GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "HUTCH_GATEWAY_STORE": f"local:{store}",
    }


@asynccontextmanager
async def gateway(
    environment: Mapping[str, str], trust: ssl.SSLContext | bool = True
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway process, once it is ready; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "block_gateway", cwd=CHECKOUT, env={**os.environ, **environment}
    )
    scheme = "https" if "HUTCH_GATEWAY_TLS_CERT" in environment else "http"
    url = f"{scheme}://{environment['HUTCH_GATEWAY_LISTEN']}/health/ready"

    async def is_ready() -> bool:
        assert process.returncode is None, "it ended"
        try:
            async with session.get(url, ssl=trust) as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    try:
        async with aiohttp.ClientSession() as session:
            await wait_until(is_ready)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_killed_between_pack_and_index(
    world: World, dsn: str, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """What was not answered may be known or not; what is known is there, and sending again mends all."""
    device = await world.device()
    workspace_id = await world.workspace(device.user_id)
    store, environment = tmp_path / "store", settings(dsn, tmp_path / "store", free_port())
    client = Caller(session, f"http://{environment['HUTCH_GATEWAY_LISTEN']}", device.credential)
    before, during = random.randbytes(1_000), random.randbytes(1_000)
    holder = await asyncpg.connect(dsn)

    async def two_packs() -> bool:
        return len([path for path in (store / "packs").rglob("*") if path.is_file()]) == 2

    async with gateway(environment) as process:
        await client.upload(workspace_id, before)
        async with holder.transaction():
            await holder.execute("LOCK TABLE packs IN ACCESS EXCLUSIVE MODE")
            upload = asyncio.create_task(client.upload(workspace_id, during), name="upload")
            await wait_until(two_packs)
            process.kill()
            await process.wait()
            with pytest.raises(aiohttp.ClientError):
                await upload
    await holder.close()

    async with gateway(environment):
        assert sha(before) not in await client.missing(workspace_id, before, during)
        for frame in await client.frames(workspace_id, before, during):
            assert frame.header.codec is Codec.ABSENT or unpack_frame(frame) in (before, during)
        assert (await client.upload(workspace_id, before, during)).status == 200
        frames = await client.frames(workspace_id, before, during)
        assert [unpack_frame(frame) for frame in frames] == [before, during]
    async with LocalStore(store):
        assert len(list((store / "temporary").iterdir())) == 1, "what dead gateways left is cleared away"


async def test_sigterm_finishes_what_is_in_hand(
    world: World, dsn: str, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    device = await world.device()
    workspace_id = await world.workspace(device.user_id)
    environment = settings(dsn, tmp_path / "store", free_port())
    address = environment["HUTCH_GATEWAY_LISTEN"]
    client = Caller(session, f"http://{address}", device.credential)
    first, last = random.randbytes(3_000_000), random.randbytes(1_000)
    host, port = address.split(":")

    async def first_is_known() -> bool:
        return await world.pack_of(first) is not None

    async def door_is_shut() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionError:
            return True
        writer.close()
        return False

    async with gateway(environment) as process:

        async def body() -> AsyncIterator[bytes]:
            yield frame_of(first).encode()
            await wait_until(first_is_known)
            process.send_signal(signal.SIGTERM)
            await wait_until(door_is_shut)
            yield frame_of(last).encode()

        answer = await client.post(workspace_id, "chunks", body())
        assert (answer.status, answer.body) == (200, b'{"stored": 2}')
        assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HUTCH_GATEWAY_LISTEN", "nonsense"),
        ("HUTCH_GATEWAY_STORE", "local:/proc/no/such/place"),
        ("HUTCH_GATEWAY_TLS_CERT", "/no/such/certificate"),
    ],
)
async def test_misconfigured_ends_at_once_and_names_the_setting(
    dsn: str, tmp_path: Path, key: str, value: str
) -> None:
    environment = {**settings(dsn, tmp_path / "store", free_port()), key: value}
    if key == "HUTCH_GATEWAY_TLS_CERT":
        environment["HUTCH_GATEWAY_TLS_KEY"] = value
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "block_gateway",
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 78
    assert key in said.decode()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a gateway")])
    now = datetime.now(UTC)  # noqa: TID251  a certificate is valid by the wall clock
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_transfers_over_tls_trust_the_given_authority_alone(
    world: World, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.transfer._FIRST_DELAY_S", 0.001)
    device = await world.device()
    workspace_id = await world.workspace(device.user_id)
    certificate, key = make_certificate(tmp_path)
    environment = {
        **settings(dsn, tmp_path / "store", free_port()),
        "HUTCH_GATEWAY_TLS_CERT": str(certificate),
        "HUTCH_GATEWAY_TLS_KEY": str(key),
    }
    url = f"https://{environment['HUTCH_GATEWAY_LISTEN']}"
    raw = random.randbytes(5_000)
    got: list[Any] = []
    async with gateway(environment, ssl.create_default_context(cafile=certificate)):
        async with Transfer(url, device.credential, certificate) as transfer:
            chunk = Chunk(sha(raw), len(raw))
            await transfer.upload(workspace_id, [(chunk, lambda: raw)], lambda _: None)
            await transfer.download(workspace_id, [chunk], lambda _, data: got.append(data), lambda _: None)
        assert got == [raw]
        async with Transfer(url, device.credential) as stranger:
            with pytest.raises(Unavailable, match="certificate"):
                await stranger.missing(workspace_id, [sha(raw)])

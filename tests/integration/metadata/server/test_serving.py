"""The program itself: it starts on its settings, says whether it is ready, serves TLS, and stops when told."""

import asyncio
import os
import signal
import socket
import ssl
import sys
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from tests.integration.metadata.server.house import (
    environment_for,
    make_database,
    open_house,
    wait_until,
)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Program:
    def __init__(self, process, url, log):
        self.process, self.url, self._log = process, url, log

    @property
    def log(self):
        return self._log.read_text()

    async def get(self, path, **options):
        async with aiohttp.ClientSession() as http:
            try:
                async with http.get(self.url + path, **options) as answer:
                    return answer.status, await answer.read()
            except aiohttp.ClientError:
                return 0, b""

    async def wait_status(self, path, status, **options):
        async def answered():
            assert self.process.returncode is None or status == 0, self.log
            return (await self.get(path, **options))[0] == status

        await wait_until(answered, f"{status} of {path}", 60)


@asynccontextmanager
async def running(environment, tmp_path, scheme="http"):
    port = free_port()
    environment = {**environment, "HUTCH_METADATA_LISTEN": f"127.0.0.1:{port}"}
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "metadata.server", stderr=file, stdout=file,
            env={"PATH": os.environ["PATH"], **environment},
        )  # fmt: skip
    try:
        yield Program(process, f"{scheme}://127.0.0.1:{port}", log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def plain_environment(dsn, vhost):
    return environment_for(dsn, vhost, str(URL(vhost.amqp_url).with_user(None)))


async def test_it_gets_ready_serves_and_stops_when_told(postgres_server, rabbitmq_server, tmp_path):
    dsn, vhost = await make_database(postgres_server), rabbitmq_server.create_vhost()
    async with running(plain_environment(dsn, vhost), tmp_path) as program:
        await program.wait_status("/health/ready", 200)
        assert (await program.get("/health/live"))[0] == 200
        assert (await program.get("/v1/ca"))[0] == 404
        _, numbers = await program.get("/metrics")
        assert b"hutch_metadata_broker_follows 1.0" in numbers
        assert b'hutch_metadata_requests_total{call="GET /v1/ca",status="404"} 1.0' in numbers
        program.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await program.process.wait() == 0
        assert '"metadata_server.stopped"' in program.log
        for secret in (URL(dsn).password, URL(vhost.amqp_url).password):
            assert not secret or secret not in program.log


async def test_a_stop_lets_what_is_in_hand_be_answered(postgres_server, rabbitmq_server, tmp_path):
    dsn, vhost = await make_database(postgres_server), rabbitmq_server.create_vhost()
    async with running(plain_environment(dsn, vhost), tmp_path) as program:
        await program.wait_status("/health/ready", 200)
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(program.url).port)
        body = b'{"email": "x@y", "password": "wrong", "device_name": "x"}'
        head = f"POST /v1/link HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body[:-1])
        await writer.drain()
        await program.wait_status("/health/live", 200)  # the half request before it has been read too
        program.process.send_signal(signal.SIGTERM)
        await program.wait_status("/health/live", 0)
        writer.write(body[-1:])
        async with asyncio.timeout(30):
            assert b" 403 " in await reader.readline()
        writer.close()
        async with asyncio.timeout(30):
            assert await program.process.wait() == 0


async def test_without_its_broker_it_lives_and_is_not_ready(postgres_server, tmp_path):
    dsn = await make_database(postgres_server)
    environment = {
        "HUTCH_POSTGRES_DSN": dsn,
        "HUTCH_AMQP_URL": "amqp://nobody:secret-one@127.0.0.1:9/hutch",
        "HUTCH_MANAGEMENT_URL": "http://nobody:secret-two@127.0.0.1:9",
        "HUTCH_METADATA_PUBLIC_GATEWAY_URL": "http://gateway.example",
        "HUTCH_METADATA_PUBLIC_AMQP_URL": "amqp://broker.example/hutch",
    }
    async with running(environment, tmp_path) as program:
        await program.wait_status("/health/live", 200)
        status, body = await program.get("/health/ready")
        assert status == 503
        assert b'"broker"' in body
        assert b'"postgres"' not in body
        assert "secret-" not in program.log


async def test_wrong_settings_end_it_at_once_and_name_the_key(postgres_server, rabbitmq_server, tmp_path):
    empty, vhost = await postgres_server.create_database(), rabbitmq_server.create_vhost()
    good = plain_environment(empty, vhost)
    for changes, text in [
        ({}, "schema"),
        ({"HUTCH_AMQP_URL": ""}, "HUTCH_AMQP_URL"),
        ({"HUTCH_METADATA_TLS_CERT": "/nothing"}, "HUTCH_METADATA_TLS_KEY"),
        ({"HUTCH_METADATA_CA": "/nothing"}, "HUTCH_METADATA_CA"),
    ]:
        async with running(good | changes, tmp_path) as program:
            async with asyncio.timeout(30):
                assert await program.process.wait() == 78
            assert text in program.log


async def test_it_serves_tls_and_gives_out_its_authority(postgres_server, rabbitmq_server, tmp_path):
    dsn, vhost = await make_database(postgres_server), rabbitmq_server.create_vhost()
    certificate, key = await make_certificate(tmp_path)
    environment = plain_environment(dsn, vhost) | {
        "HUTCH_METADATA_TLS_CERT": str(certificate),
        "HUTCH_METADATA_TLS_KEY": str(key),
        "HUTCH_METADATA_CA": str(certificate),
    }
    trusting = ssl.create_default_context(cafile=certificate)
    async with running(environment, tmp_path, "https") as program:
        await program.wait_status("/health/ready", 200, ssl=trusting)
        assert await program.get("/v1/ca", ssl=trusting) == (200, certificate.read_bytes())


async def make_certificate(folder):
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    making = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=hutch test",
        "-addext", "subjectAltName=IP:127.0.0.1", stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await making.wait() == 0
    return certificate, key


async def test_ready_says_so_only_once_the_broker_follows(postgres_server, rabbitmq_server):
    async with open_house(postgres_server, rabbitmq_server, topology_too=False) as house:
        answer = await house.call("GET", "/health/ready")
        assert (answer.status, answer.json["problems"]) == (503, ["broker"])
        loop = asyncio.create_task(house.services.follower.run())
        try:
            await wait_until(lambda: house.services.follower.healthy, "the first comparison")
            assert (await house.call("GET", "/health/ready")).status == 200
        finally:
            loop.cancel()

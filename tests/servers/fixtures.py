"""The real servers that tests run on: one set a session, each started when the first test asks for it.

    async def test_something(postgres_server, rabbitmq_server, s3_server):
        dsn = await postgres_server.create_database()          # a fresh, empty database
        vhost = rabbitmq_server.create_vhost()                 # .amqp_url, .management_url, .name
        bucket = await s3_server.create_bucket()

Ports are free ones, data are in a private temporary folder, and at the session's end no process is left.
"""

from __future__ import annotations

import itertools
import json
import secrets as randomness
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest
from aiobotocore.session import get_session

from deploy.keep import Ports, Secrets
from deploy.servers import S3, Epmd, Postgres, RabbitMQ
from tests.servers.running import kill_all, start_server

_numbers = itertools.count(1)


@dataclass(frozen=True)
class ServersFolder:
    """Where one session's servers keep their data, ports and passwords."""

    path: Path
    ports: Ports
    secrets: Secrets


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL. `dsn` names the maintenance database; make a database of your own to write in."""

    server: Postgres

    @property
    def dsn(self) -> str:
        """The maintenance database, as superuser."""
        return self.server.dsn_of("postgres")

    async def create_database(self) -> str:
        """Make a fresh, empty database, and return its DSN."""
        name = f"test_{next(_numbers)}_{randomness.token_hex(4)}"
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return self.server.dsn_of(name)


@dataclass(frozen=True)
class Vhost:
    """A fresh vhost. Both URLs bear the administrator's credentials."""

    name: str
    amqp_url: str
    management_url: str


@dataclass(frozen=True)
class RabbitMQServer:
    """A running RabbitMQ node with its management plugin."""

    server: RabbitMQ

    @property
    def amqp_url(self) -> str:
        """The vhost `hutch`, as administrator."""
        return self.server.amqp_url

    @property
    def management_url(self) -> str:
        """The management interface, with the administrator's credentials."""
        return self.server.management_url

    def create_vhost(self) -> Vhost:
        """Make a fresh, empty vhost in which the administrator may do all."""
        name = f"test-{next(_numbers)}-{randomness.token_hex(4)}"
        self.call("PUT", f"/api/vhosts/{name}")
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        self.call("PUT", f"/api/permissions/{name}/{self.server.user}", rights)
        return Vhost(name=name, amqp_url=self.server.amqp_url_of(name), management_url=self.management_url)

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """Call the management interface as administrator, and return the answer's body."""
        base = f"http://127.0.0.1:{self.server.management_port}"
        request = urllib.request.Request(base + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        handler = urllib.request.HTTPPasswordMgrWithPriorAuth()
        handler.add_password(None, base, self.server.user, self.server.password, is_authenticated=True)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(handler)
        )
        with opener.open(request, timeout=30) as answer:
            return bytes(answer.read())


@dataclass(frozen=True)
class S3Server:
    """A running S3 server."""

    server: S3
    endpoint: str = field(init=False)
    access_key: str = field(init=False)
    secret_key: str = field(init=False)
    region: str = field(init=False)

    def __post_init__(self) -> None:
        for name in ("endpoint", "access_key", "secret_key", "region"):
            object.__setattr__(self, name, getattr(self.server, name))

    async def create_bucket(self) -> str:
        """Make a fresh, empty bucket, and return its name."""
        name = f"test-{next(_numbers)}-{randomness.token_hex(4)}"
        async with get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        ) as client:
            await client.create_bucket(Bucket=name)
        return name


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[ServersFolder]:
    """The folder of this session's servers; kills them at the end, and removes it."""
    path = Path(tempfile.mkdtemp(prefix="hutch tests "))
    try:
        yield ServersFolder(path, Ports(path), Secrets(path))
    finally:
        kill_all(path)
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(servers_folder: ServersFolder) -> PostgresServer:
    """A real PostgreSQL."""
    server = Postgres(servers_folder.path, servers_folder.ports, servers_folder.secrets, durable=False)
    start_server(server, servers_folder.path)
    return PostgresServer(server)


@pytest.fixture(scope="session")
def rabbitmq_server(servers_folder: ServersFolder) -> RabbitMQServer:
    """A real RabbitMQ."""
    epmd = Epmd(servers_folder.path, servers_folder.ports)
    start_server(epmd, servers_folder.path)
    server = RabbitMQ(servers_folder.path, servers_folder.ports, servers_folder.secrets, epmd)
    start_server(server, servers_folder.path)
    return RabbitMQServer(server)


@pytest.fixture(scope="session")
def s3_server(servers_folder: ServersFolder) -> Iterator[S3Server]:
    """A real S3 server."""
    server = S3(servers_folder.path, servers_folder.ports, servers_folder.secrets)
    start_server(server, servers_folder.path)
    try:
        yield S3Server(server)
    finally:
        server.clear()

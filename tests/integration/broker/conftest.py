"""What tests on a real broker share: a vhost with the topology, and a node that may be killed."""

from __future__ import annotations

import asyncio
import datetime
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from yarl import URL

from broker.connection import BrokerAddress
from broker.management import Management
from deploy import bootstrap, processes
from deploy.certificates import ensure_certificate
from deploy.keep import Ports, Secrets
from deploy.servers import Epmd, RabbitMQ
from tests.servers.fixtures import RabbitMQServer
from tests.servers.running import kill_all, start_server


@dataclass(frozen=True)
class Cell:
    """A vhost of the session's broker, with the topology in it."""

    management: Management
    management_url: str
    address: BrokerAddress
    vhost: str


@pytest.fixture
async def cell(rabbitmq_server: RabbitMQServer) -> AsyncIterator[Cell]:
    """A fresh vhost, with the topology; the address is the administrator's."""
    vhost = rabbitmq_server.create_vhost()
    async with Management(vhost.management_url, vhost.name) as management:
        await management.ensure_topology()
        address = BrokerAddress.parse(vhost.amqp_url)
        yield Cell(management, vhost.management_url, address, vhost.name)


class MortalBroker:
    """A node of one's own, to kill and start again. Its data stay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports, secrets = Ports(folder), Secrets(folder)
        self._epmd = Epmd(folder, ports)
        start_server(self._epmd, folder)
        self._server = RabbitMQ(folder, ports, secrets, self._epmd)
        now = datetime.datetime.now(datetime.UTC)  # noqa: TID251 - certificates are valid from now
        for authority in (folder, folder / "another authority"):
            authority.mkdir(exist_ok=True)
            ensure_certificate(authority, ["127.0.0.1"], now)
        tls = (folder / "ca.pem", folder / "server.pem", folder / "server.key")
        self._tls_port = ports.get("amqps")
        self._server.expose("127.0.0.1", self._tls_port, tls)
        start_server(self._server, folder)

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress.parse(self._server.amqp_url)

    def tls_address(self, *, trusted: bool) -> BrokerAddress:
        """The same over TLS, trusting its authority or another one."""
        url = URL(self._server.amqp_url).with_scheme("amqps").with_port(self._tls_port)
        authority = self._folder if trusted else self._folder / "another authority"
        return BrokerAddress.parse(str(url), cafile=str(authority / "ca.pem"))

    @property
    def management_url(self) -> str:
        return self._server.management_url

    def end(self, how: signal.Signals) -> None:
        """End the node and what it started, and return once it is gone."""
        home = str(self._server.command().folder)
        strays = processes.find_strays(self._folder)
        inside = [stray for stray in strays if os.readlink(f"/proc/{stray.pid}/cwd").startswith(home)]
        assert inside
        processes.end(inside, how)

    def start(self) -> None:
        """Start it again, and return once it answers."""
        start_server(self._server, self._folder)

    async def set_alarm(self, on: bool) -> None:
        """Raise the memory alarm, or clear it."""
        scripts = bootstrap.find_rabbitmq()
        assert scripts is not None
        name = "{resource_limit, memory, node()}"
        call = f"rabbit_alarm:set_alarm({{{name}, []}})." if on else f"rabbit_alarm:clear_alarm({name})."
        environment = processes.environment(self._folder, self._server.command().settings)
        await asyncio.to_thread(
            subprocess.run,
            [str(scripts / "rabbitmqctl"), "eval", call],
            env=environment,
            check=True,
            capture_output=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def mortal_broker() -> Iterator[MortalBroker]:
    """A broker that only this module's tests use."""
    folder = Path(tempfile.mkdtemp(prefix="hutch mortal "))
    try:
        yield MortalBroker(folder)
    finally:
        kill_all(folder)
        shutil.rmtree(folder, ignore_errors=True)

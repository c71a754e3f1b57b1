"""What tests of real workers share: a database and a vhost of their own, and worker processes on them."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest
from msgspec.structs import replace
from yarl import URL

from broker.connection import BrokerAddress, Consumer, Delivery, Publisher
from broker.management import Management, hash_password
from broker.messages import Inbox, decode_inbox, encode
from broker.topology import REQUESTS, WORKER_PERMISSIONS, device_binding, device_queue
from metadata.database import close, connect
from metadata.migrate import migrate
from metadata.state import Submission
from tests.commits.postgres import PostgresBacking
from tests.servers.fixtures import PostgresServer, RabbitMQServer, Vhost

CHECKOUT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


async def wait_until(condition: Callable[[], Awaitable[bool]], deadline_s: float = 60) -> None:
    """Ask again and again until it is so."""
    async with asyncio.timeout(deadline_s):
        while not await condition():  # noqa: ASYNC110 - what is waited for lies in other processes
            await asyncio.sleep(0.02)


@dataclass
class Inboxes:
    """What has come to the queues that are listened to."""

    got: dict[str, list[Inbox]] = field(default_factory=dict)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, queue: str, delivery: Delivery) -> None:
        async with self.news:
            self.got.setdefault(queue, []).append(decode_inbox(delivery.body))
            self.news.notify_all()
        await delivery.ack()

    async def wait_for(self, condition: Callable[[], bool], deadline_s: float = 60) -> None:
        async with asyncio.timeout(deadline_s), self.news:
            await self.news.wait_for(condition)


@dataclass
class Stage:
    """A database with the schema, a vhost with the topology, and how to have workers on them."""

    dsn: str
    vhost: Vhost
    backing: PostgresBacking
    management: Management
    worker_amqp_url: str
    inboxes: Inboxes = field(default_factory=Inboxes)

    @property
    def address(self) -> BrokerAddress:
        """The broker's, as administrator: whom the workers take for the relay."""
        return BrokerAddress.parse(self.vhost.amqp_url)

    async def add_queue(self, queue: str, *workspace_ids: UUID) -> None:
        """A device's response queue, with its bindings."""
        await self.management.ensure_queue(device_queue(queue))
        for workspace_id in workspace_ids:
            await self.management.bind(device_binding(queue, workspace_id))

    @asynccontextmanager
    async def listening(self, *queues: str) -> AsyncIterator[None]:
        """Consume device queues into `inboxes`."""
        async with asyncio.TaskGroup() as group:
            tasks = []
            for queue in queues:
                consumer = Consumer(self.address, queue, prefetch=32)

                async def take(delivery: Delivery, queue: str = queue) -> None:
                    await self.inboxes.take(queue, delivery)

                tasks.append(group.create_task(consumer.run(take), name=f"listen to {queue}"))
            yield
            for task in tasks:
                task.cancel()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[Callable[[Submission], Awaitable[None]]]:
        """Publish requests as the relay, on behalf of their devices."""
        address = self.address
        async with Publisher(address, user_id=address.user) as publisher:

            async def send(submission: Submission) -> None:
                request = replace(submission.request, on_behalf_of=submission.device_id)
                await publisher.publish(REQUESTS, REQUESTS, encode(request))

            yield send

    def settings(self, name: str, **more: str) -> dict[str, str]:
        """A worker's environment."""
        return {
            "HUTCH_POSTGRES_DSN": self.dsn,
            "HUTCH_AMQP_URL": self.worker_amqp_url,
            "HUTCH_WORKERS_RELAY_USER": str(self.address.user),
            "HUTCH_WORKERS_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
            "HUTCH_WORKERS_NAME": name,
            **more,
        }

    @asynccontextmanager
    async def worker(
        self, name: str = "one", module: str = "sync_workers", **more: str
    ) -> AsyncIterator["WorkerProcess"]:
        """A worker process; stopped politely at the end, and it must have ended well unless it was killed."""
        settings = self.settings(name, **more)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, cwd=CHECKOUT, env={**os.environ, **settings}
        )
        worker = WorkerProcess(process, f"http://{settings['HUTCH_WORKERS_METRICS_LISTEN']}")
        try:
            yield worker
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(60):
                    assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@dataclass
class WorkerProcess:
    """A worker that runs, and its HTTP face."""

    process: asyncio.subprocess.Process
    url: str

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 while it does not answer."""
        try:
            async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def wait_ready(self) -> None:
        """Return once it consumes."""

        async def is_ready() -> bool:
            assert self.process.returncode is None, "it ended"
            return (await self.get("/health/ready"))[0] == 200

        await wait_until(is_ready)


@pytest.fixture
async def stage(postgres_server: PostgresServer, rabbitmq_server: RabbitMQServer) -> AsyncIterator[Stage]:
    """Empty, but for schema and topology."""
    dsn = await postgres_server.create_database()
    await migrate(dsn)
    pool = await connect(dsn)
    vhost = rabbitmq_server.create_vhost()
    async with Management(vhost.management_url, vhost.name) as management:
        await management.ensure_topology()
        worker, password = f"workers of {vhost.name}", secrets.token_hex(16)
        await management.put_user(worker, hash_password(password))
        await management.put_permissions(worker, WORKER_PERMISSIONS)
        url = URL(vhost.amqp_url).with_user(worker).with_password(password)
        yield Stage(dsn, vhost, PostgresBacking(pool), management, str(url))
        await management.delete_user(worker)
    await close(pool)

"""A metadata server to meet, on real servers, and the people and devices that call it."""

import asyncio
import io
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import aio_pika
import aiohttp
import asyncpg
import msgpack
from aiohttp import web
from argon2 import PasswordHasher
from yarl import URL

from broker import topology
from broker.management import Management
from metadata.accounts import Passwords
from metadata.migrate import migrate
from metadata.server.app import make_app, open_services
from metadata.server.services import Services
from metadata.server.settings import Settings, read_settings

PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> Any:
        return self.json["code"]

    @property
    def objects(self) -> list[Any]:
        unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
        unpacker.feed(self.body)
        return list(unpacker)


@dataclass(frozen=True)
class Device:
    """A linked device, with all that it was told."""

    session: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        return str(self.session["device_id"])

    @property
    def credential(self) -> str:
        return f"{self.id}.{self.session['device_secret']}"

    @property
    def queue(self) -> str:
        return str(self.session["queue"])

    @property
    def amqp_url(self) -> str:
        url = URL(self.session["amqp_url"])
        return str(url.with_user(self.id).with_password(self.session["amqp_password"]))


async def wait_until(holds: Callable[[], Any], what: str, timeout_s: float = 30) -> None:
    """Wait for a condition (it may be awaitable) with a deadline."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                found = holds()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None


class House:
    """One metadata server with a database and a virtual host of its own."""

    def __init__(self, services: Services, url: str, rabbitmq: Any, http: aiohttp.ClientSession) -> None:
        self.services = services
        self.url = url
        self.rabbitmq = rabbitmq
        self._http = http

    @property
    def pool(self) -> Any:
        return self.services.pool

    @property
    def vhost(self) -> str:
        return self.services.settings.vhost

    async def call(self, method: str, path: str, device: Device | None = None, **options: Any) -> Answer:
        if isinstance(options.get("data"), bytes):
            options["data"] = io.BytesIO(options["data"])
        headers = options.pop("headers", {})
        if device is not None:
            headers = {"Authorization": f"Bearer {device.credential}", **headers}
        async with self._http.request(method, self.url + path, headers=headers, **options) as answer:
            return Answer(answer.status, await answer.read(), dict(answer.headers))

    async def person(self) -> str:
        """A new account's address; its password is `PASSWORD`."""
        email = f"{secrets.token_hex(8)}@example.org"
        await self.services.registry.add_user(email, CHEAP.hash(PASSWORD))
        return email

    async def link(self, email: str, name: str = "laptop", password: str = PASSWORD) -> Device:
        body = {"email": email, "password": password, "device_name": name, "platform": "linux"}
        answer = await self.call("POST", "/v1/link", json=body)
        assert answer.status == 200, answer.body
        return Device(answer.json)

    async def workspace(self, device: Device, name: str = "home") -> UUID:
        answer = await self.call("POST", "/v1/workspaces", device, json={"name": name})
        assert answer.status == 200, answer.body
        return UUID(answer.json["workspace_id"])

    async def queues(self) -> list[str]:
        async with Management(self.services.settings.management_url, self.vhost) as management:
            return await management.list_queues()

    async def users(self) -> set[str]:
        async with Management(self.services.settings.management_url, self.vhost) as management:
            return set(await management.list_users())

    async def keys(self, queue: str) -> set[str]:
        """The routing keys of a queue's bindings to the changes."""
        async with Management(self.services.settings.management_url, self.vhost) as management:
            bindings = await management.list_bindings(queue=queue)
        return {each.routing_key for each in bindings if each.exchange == topology.CHANGES}

    async def publish_change(self, workspace_id: UUID, body: bytes) -> None:
        await self.services.publisher.publish(topology.CHANGES, str(workspace_id), body)


async def connect(device: Device) -> aio_pika.abc.AbstractConnection:
    """Connect to the broker as that device."""
    async with asyncio.timeout(15):
        return await aio_pika.connect(device.amqp_url)


def has_ended(connection: aio_pika.abc.AbstractConnection) -> bool:
    """Whether the broker, or anybody, has closed it."""
    return connection.transport is None or connection.transport.connection.is_closed


async def consume(connection: aio_pika.abc.AbstractConnection, queue: str) -> "asyncio.Queue[bytes]":
    """Consume a queue for oneself."""
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await message.ack()
        arrived.put_nowait(message.body)

    async with asyncio.timeout(15):
        channel = await connection.channel(publisher_confirms=False)
        found = await channel.get_queue(queue, ensure=False)
        await found.consume(take, exclusive=True)
    return arrived


async def wait_message(arrived: "asyncio.Queue[bytes]") -> bytes:
    async with asyncio.timeout(15):
        return await arrived.get()


def settings_for(dsn: str, vhost: Any, **changes: str) -> Settings:
    public = URL(vhost.amqp_url).with_user(None)
    return read_settings(environment_for(dsn, vhost, str(public)) | changes)


def environment_for(dsn: str, vhost: Any, public_amqp_url: str) -> dict[str, str]:
    return {
        "HUTCH_POSTGRES_DSN": dsn,
        "HUTCH_AMQP_URL": vhost.amqp_url,
        "HUTCH_MANAGEMENT_URL": vhost.management_url,
        "HUTCH_METADATA_LISTEN": "127.0.0.1:0",
        "HUTCH_METADATA_PUBLIC_GATEWAY_URL": "http://gateway.example",
        "HUTCH_METADATA_PUBLIC_AMQP_URL": public_amqp_url,
    }


async def make_database(postgres_server: Any) -> str:
    dsn: str = await postgres_server.create_database()
    await migrate(dsn)
    return dsn


@asynccontextmanager
async def open_house(
    postgres_server: Any, rabbitmq_server: Any, *, topology_too: bool = True, **changes: str
) -> AsyncIterator[House]:
    """A house whose broker is compared with PostgreSQL only when a test asks for it."""
    dsn, vhost = await make_database(postgres_server), rabbitmq_server.create_vhost()
    async with open_services(settings_for(dsn, vhost, **changes)) as opened:
        services = replace(opened, passwords=Passwords(hasher=CHEAP))
        if topology_too:
            await services.follower.compare()
        async with serving(services) as url, aiohttp.ClientSession() as http:
            yield House(services, url, rabbitmq_server, http)


@asynccontextmanager
async def serving(services: Services) -> AsyncIterator[str]:
    runner = web.AppRunner(make_app(services), access_log=None, shutdown_timeout=2, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def sql(house: House, query: str, *arguments: Any) -> Any:
    """One statement, straight into the database, on a connection of its own."""
    connection = await asyncpg.connect(house.services.settings.dsn)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()

"""A raw client with a device's credentials: AMQP and HTTP as any program could speak them, without the agent's care."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID, uuid4

import aio_pika
import aiohttp
import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage
from yarl import URL

from broker import topology
from broker.delivery import DETAIL_HEADER, ORIGIN_HEADER, REASON_HEADER
from broker.messages import (
    ChangeNotice,
    CommitAccepted,
    CommitRefused,
    CommitRequest,
    decode_entry,
    decode_inbox,
    encode,
)
from broker.model import ConflictCode, Cursor, MakeDirectory, Operation
from tests.machines.stack import PASSWORD

PATIENCE_S: Final = 30.0
OWN: Final = "its own device id"


class Http:
    """Calls to one of the service's servers, with a credential or without."""

    def __init__(self, url: str, bearer: str | None = None) -> None:
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        self._session = aiohttp.ClientSession(url, headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        async with asyncio.timeout(PATIENCE_S), self._session.request(method, path, **options) as answer:
            return answer.status, await answer.read()

    async def code(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """The status and the stable code of a refusal."""
        status, body = await self.call(method, path, **options)
        return status, json.loads(body)["code"]


class Wire:
    """One device. Use as `async with`; it then consumes its queue.

    Args:
        session: What linking answered, or what HUTCH_HOME keeps: ids, addresses, secrets.
        metadata_url: The metadata server's.
    """

    def __init__(self, session: dict[str, Any], metadata_url: str) -> None:
        self.device_id = UUID(session["device_id"])
        self.queue: str = session["queue"]
        bearer = f"{session['device_id']}.{session['device_secret']}"
        self.metadata = Http(metadata_url, bearer)
        self.gateway = Http(session["gateway_url"], bearer)
        address = URL(session["amqp_url"])
        self.amqp_url = str(address.with_user(session["device_id"]).with_password(session["amqp_password"]))
        self.workspace_id = UUID(int=0)
        self.cursor = Cursor(0, 0, bytes(32))
        self.closed = asyncio.Event()
        self._incarnation = uuid4()
        self._number = 0
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue(1_000)

    async def __aenter__(self) -> Self:
        await self.metadata.__aenter__()
        await self.gateway.__aenter__()
        self._connection = await aio_pika.connect(self.amqp_url)
        self._connection.close_callbacks.add(lambda *_: self.closed.set())
        await (await self.channel()).basic_consume(self.queue, self._take, no_ack=True)
        await self.join("shared")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()
        await self.gateway.__aexit__(kind, error, trace)
        await self.metadata.__aexit__(kind, error, trace)

    async def _take(self, message: DeliveredMessage) -> None:
        self._inbox.put_nowait(message.body)

    async def channel(self) -> AbstractChannel:
        """A raw channel of its own: whatever the broker closes with it, the others stay."""
        opened = await self._connection.channel(on_return_raises=True)
        return await opened.get_underlay_channel()

    async def join(self, name: str) -> None:
        """Work in the account's workspace of that name, from its head on."""
        _, body = await self.metadata.call("POST", "/v1/workspaces", json={"name": name})
        told = json.loads(body)
        self.workspace_id = UUID(told["workspace_id"])
        self.cursor = Cursor(told["epoch"], told["seq"], bytes.fromhex(told["chain"]))

    # --- sending

    async def publish(self, body: bytes, *, user_id: str | None = OWN) -> None:
        """Publish any bytes as a request, and return when the broker has confirmed that it has them."""
        if user_id == OWN:
            user_id = str(self.device_id)
        await self.publish_with(body, aiormq.spec.Basic.Properties(delivery_mode=2, user_id=user_id))

    async def publish_with(self, body: bytes, properties: aiormq.spec.Basic.Properties) -> None:
        """The same, with properties of one's own. Raises what the broker answers."""
        channel = await self.channel()
        async with asyncio.timeout(PATIENCE_S):
            await channel.basic_publish(
                body,
                exchange=topology.REQUESTS,
                routing_key=topology.REQUESTS,
                properties=properties,
                mandatory=True,
            )
        if not channel.is_closed:
            await channel.close()

    def request(self, *operations: Operation, **others: Any) -> CommitRequest:
        """The next commit request."""
        self._number += 1
        fields = {
            "workspace_id": self.workspace_id,
            "incarnation": self._incarnation,
            "number": self._number,
            "cursor": self.cursor,
            "operations": operations,
        }
        return CommitRequest(**{**fields, **others})

    async def commit(self, *operations: Operation) -> ConflictCode | None:
        """Commit, and return why that was refused; None: it was accepted."""
        request = self.request(*operations)
        await self.publish(encode(request))
        return await self.answer(request.number)

    async def commit_good(self) -> None:
        """A commit that nobody could refuse: the worker lives on."""
        assert await self.commit(a_directory(f"good {uuid4()}")) is None

    # --- receiving

    async def answer(self, number: int) -> ConflictCode | None:
        """Wait for the answer to one's request; the first reason of a refusal, None for a commit."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = decode_inbox(await self._inbox.get())
                if isinstance(message, ChangeNotice):
                    self.cursor = message.head
                    entries = [decode_entry(entry) for entry in message.entries]
                    if any((e.device_id, e.number) == (self.device_id, number) for e in entries):
                        return None
                elif isinstance(message, CommitRefused) and message.number == number:
                    return message.conflicts[0].code
                elif isinstance(message, CommitAccepted) and message.number == number:
                    return None


async def link(metadata_url: str, email: str) -> Wire:
    """Link a raw client to an account. It works in the workspace `shared` once it is entered."""
    body = {"email": email, "password": PASSWORD, "device_name": "raw", "platform": "Linux"}
    async with Http(metadata_url) as anyone:
        status, answer = await anyone.call("POST", "/v1/link", json=body)
        assert status == 200, answer
    return Wire(json.loads(answer), metadata_url)


def a_directory(name: str) -> MakeDirectory:
    """The operation that makes a directory at the top."""
    return MakeDirectory(node_id=uuid4(), parent_id=UUID(int=0), name=name, mode=0o755)


class DeadLetters:
    """The service's queue of what nobody can handle, as an operator reads it."""

    def __init__(self, amqp_url: str) -> None:
        self._url = amqp_url
        self._seen: dict[bytes, dict[str, Any]] = {}

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect(self._url)
        channel = await self._connection.channel()
        self._channel = await channel.get_underlay_channel()
        self._arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        await self._channel.basic_consume(topology.DEAD, self._arrived.put, no_ack=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def reason(self, body: bytes, *, of: UUID | None) -> str:
        """Wait until a message was put aside, and say why. `of`: whom the broker had verified as its author."""
        async with asyncio.timeout(PATIENCE_S):
            while body not in self._seen:
                message = await self._arrived.get()
                self._seen[message.body] = dict(message.header.properties.headers or {})
        headers = self._seen[body]
        assert headers.get(ORIGIN_HEADER) == (None if of is None else str(of))
        assert DETAIL_HEADER in headers
        reason = headers[REASON_HEADER]
        assert isinstance(reason, str)
        return reason

"""Publishes to RabbitMQ with confirms, over a connection that is opened when needed and closed when idle."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import aio_pika
import structlog
from aio_pika import exceptions as amqp
from aiormq.abc import AbstractChannel

from broker.delivery import Headers
from broker.errors import HutchError, Refused, Unavailable
from broker.link import (
    BrokerAddress,
    Link,
    Patience,
    blocked_by_alarm,
    open_link,
    translate,
    wait_or,
)
from broker.messages import MAX_MESSAGE_SIZE_BYTES

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Publisher:
    """Publishes, each message persistent, mandatory and confirmed. Many may be in flight at once.

    Use as an async context manager. The connection is opened when it is needed, and closed when it was not for
    `idle_close_s` (None: only at the end).

    Args:
        address: Where the broker is.
        user_id: Goes on each message; the broker verifies that it is the connection's own user. None: not said.
        idle_close_s: See above.
        on_unreachable: Called each time that the broker could not be reached: perhaps it has moved (`move`).
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        user_id: str | None,
        idle_close_s: float | None = None,
        on_unreachable: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address
        self._moved = asyncio.Event()
        self._on_unreachable = on_unreachable
        self._user_id = user_id
        self._idle_close_s = idle_close_s
        self._opening = asyncio.Lock()
        self._patience = Patience()
        self._link: Link | None = None
        self._channel: AbstractChannel | None = None
        self._channel_opening = asyncio.Lock()
        self._alone = asyncio.Lock()
        self._in_flight = 0
        self._used = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle_watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._idle_close_s is not None:
            watch = self._close_when_idle(self._idle_close_s)
            self._idle_watch = asyncio.create_task(watch, name="publisher idle watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._idle_watch is not None:
            self._idle_watch.cancel()
            await asyncio.wait([self._idle_watch])
        await self._close_link()

    def move(self, address: BrokerAddress) -> None:
        """From now on the broker is there. What is in flight may fail, as when a connection is lost."""
        if address != self._address:
            self._address = address
            self._moved.set()

    @property
    def connected(self) -> bool:
        """Whether a connection is open just now. An idle publisher has none, and is well."""
        return self._link is not None and self._link.open

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        timeout_s: float = 30,
        headers: Headers | None = None,
    ) -> None:
        """Publish one message, and return once the broker has it for good.

        While there is no connection, opening one is tried again and again until the time is over. After any
        `Retryable` the message may still have arrived: publish it again, it may come twice.

        Args:
            exchange: Where to.
            routing_key: With which key.
            body: At most `MAX_MESSAGE_SIZE_BYTES`.
            timeout_s: For all of it: connecting, sending, and the broker's confirm.
            headers: More to say about the message.

        Raises:
            Blocked: A queue on its way is full (fan-out: others may have it), or an alarm is on.
            Unavailable: No connection, it was lost, or no confirm in time.
            NotFound: With code `no_route`, no queue takes it; else there is no such exchange.
            Refused: With code `too_large`, before anything is sent.
            Forbidden: Credentials not valid any more, no right to this exchange, or another's `user_id`.
        """
        if len(body) > MAX_MESSAGE_SIZE_BYTES:
            raise Refused(
                f"a message may have {MAX_MESSAGE_SIZE_BYTES} bytes, not {len(body)}", code="too_large"
            )
        message = aio_pika.Message(
            body,
            headers=dict(headers or {}),
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            user_id=self._user_id,
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        with self._counted():
            link = await self._ready_link(deadline)
            if await link.is_blocked():
                raise blocked_by_alarm()
            async with link.limited(deadline - loop.time()):
                await self._send(link, exchange, routing_key, message)

    async def _send(self, link: Link, exchange: str, routing_key: str, message: aio_pika.Message) -> None:
        try:
            channel = await self._shared_channel(link)
            await _publish_on(channel, exchange, routing_key, message)
        except amqp.DeliveryError as error:
            raise translate(error) from error
        except (amqp.ChannelClosed, amqp.ChannelInvalidStateError):
            # The broker closes a channel for one bad publish, and all that was in flight on it fails alike. Whom it
            # meant shows only when each is published again, alone.
            await self._send_alone(link, exchange, routing_key, message)
        except amqp.CONNECTION_EXCEPTIONS as error:
            raise translate(error) from error

    async def _send_alone(
        self, link: Link, exchange: str, routing_key: str, message: aio_pika.Message
    ) -> None:
        try:
            async with self._alone:  # one at a time: a device may have few channels
                if not link.open:
                    raise Unavailable("the connection to the broker has ended")
                channel = await link.channel()
                await _publish_on(channel, exchange, routing_key, message)
                await channel.close()
        except amqp.CONNECTION_EXCEPTIONS as error:
            raise translate(error) from error

    async def _shared_channel(self, link: Link) -> AbstractChannel:
        async with self._channel_opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = await link.channel()
            return self._channel

    async def _ready_link(self, deadline: float) -> Link:
        try:
            async with asyncio.timeout_at(deadline), self._opening:
                while self._link is None or not self._link.open or self._moved.is_set():
                    await self._close_link()
                    await self._try_to_open()
                return self._link
        except TimeoutError as error:
            raise Unavailable("the broker cannot be reached") from error

    async def _try_to_open(self) -> None:
        self._moved.clear()
        try:
            self._link = await open_link(self._address, "publish")
        except HutchError as error:
            if not self._patience.bears(error, asyncio.get_running_loop().time()):
                raise
            attempt, delay_s = self._patience.attempts, self._patience.delay_s()
            log.info("broker_publisher.waited", attempt=attempt, delay_s=delay_s, error=str(error))
            self._on_unreachable()
            await wait_or(self._moved, delay_s)
        else:
            self._patience = Patience()

    async def _close_link(self) -> None:
        # Taken out first: whoever publishes while the old one is being closed opens another.
        link, self._link, self._channel = self._link, None, None
        if link is not None:
            await link.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._in_flight += 1
        self._idle.clear()
        self._used.set()
        try:
            yield
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._used.clear()
                self._idle.set()

    async def _close_when_idle(self, idle_s: float) -> None:
        while True:
            await self._idle.wait()
            try:
                async with asyncio.timeout(idle_s):
                    await self._used.wait()
            except TimeoutError:
                if self._in_flight == 0:
                    self._idle.clear()
                    await self._close_link()


async def _publish_on(
    channel: AbstractChannel, exchange: str, routing_key: str, message: aio_pika.Message
) -> None:
    await channel.basic_publish(
        message.body,
        exchange=exchange,
        routing_key=routing_key,
        properties=message.properties,
        mandatory=True,
    )

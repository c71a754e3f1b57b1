"""Consumes one queue of RabbitMQ, and comes back after whatever ends a connection."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Final

import structlog
from aio_pika import exceptions as amqp
from aiormq.abc import AbstractChannel as RawChannel
from aiormq.abc import DeliveredMessage

from broker.delivery import Delivery, OnConnected, OnDelivery
from broker.errors import HutchError, Retryable
from broker.link import (
    CONNECT_TIMEOUT_S,
    BrokerAddress,
    Link,
    Patience,
    open_link,
    translate,
    wait_or,
)

SETTLE_TIMEOUT_S: Final = 30.0
STEADY_S: Final = 5.0
"""A connection that lasted this long was a good one: the next failure counts from one again."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Consumer:
    """Consumes one queue, for as long as it takes.

    Args:
        address: Where the broker is.
        queue: Which queue. It must stand already: consumers declare nothing.
        prefetch: How many unsettled deliveries may be in hand.
        exclusive: Refuse to share the queue with another consumer.
    """

    def __init__(self, address: BrokerAddress, queue: str, *, prefetch: int, exclusive: bool = False) -> None:
        self._address = address
        self._queue = queue
        self._prefetch = prefetch
        self._exclusive = exclusive
        self._stream: _Stream | None = None
        self._moved = asyncio.Event()
        self._trouble: HutchError | None = None

    @property
    def connected(self) -> bool:
        """Whether deliveries can arrive just now."""
        return self._stream is not None and not self._stream.ended

    @property
    def trouble(self) -> HutchError | None:
        """Why the last try to consume failed; None while it goes well."""
        return self._trouble

    def move(self, address: BrokerAddress, queue: str) -> None:
        """From now on the broker is there, and the queue is called so: a connection to another place is ended."""
        if (address, queue) == (self._address, self._queue):
            return
        self._address, self._queue = address, queue
        self._moved.set()
        if self._stream is not None:
            self._stream.end()

    async def run(
        self,
        on_delivery: OnDelivery,
        *,
        on_connected: OnConnected | None = None,
        on_unreachable: Callable[[], None] | None = None,
    ) -> None:
        """Hand over deliveries, one after the other, until cancelled; connect again whenever the connection is lost.

        What was in hand when a connection is lost comes again, and settling it does nothing.

        Args:
            on_delivery: Called for each, and awaited when it can be: the next waits meanwhile. It may keep the
                delivery and settle it later. What it raises ends the run.
            on_connected: Awaited each time that consuming has begun, before deliveries are handed over.
            on_unreachable: Called each time that the broker could not be reached: perhaps it has moved (`move`).

        Raises:
            Forbidden: The credentials are not valid (any more), or give no right to this queue.
            NotFound: The queue is gone: seen several times over some seconds, since a broker that is just starting
                may say so of a queue that it has.
            Refused: With code `in_use`, another consumer has the queue for itself.
            Misconfigured: The address cannot be used.
        """
        patience = Patience()
        loop = asyncio.get_running_loop()
        while True:
            stream = await self._start(patience, on_unreachable)
            began = loop.time()
            self._stream = stream
            try:
                if self._moved.is_set():  # while it was being opened
                    stream.end()
                if on_connected is not None:
                    await on_connected()
                await stream.hand_over(on_delivery)
            finally:
                self._stream = None
                await stream.close()
            if loop.time() - began > STEADY_S:
                patience = Patience()
            log.warning("broker_consumer.lost")

    async def _start(self, patience: Patience, on_unreachable: Callable[[], None] | None) -> "_Stream":
        while True:
            self._moved.clear()
            try:
                stream = await _open_stream(self._address, self._queue, self._prefetch, self._exclusive)
            except HutchError as error:
                self._trouble = error
                if not patience.bears(error, asyncio.get_running_loop().time()):
                    raise
                delay_s = patience.delay_s()
                log.info(
                    "broker_consumer.waited", attempt=patience.attempts, delay_s=delay_s, error=str(error)
                )
                if on_unreachable is not None:
                    on_unreachable()
                await wait_or(self._moved, delay_s)
            else:
                self._trouble = None
                log.info("broker_consumer.started", attempt=patience.attempts)
                return stream


class _Stream:
    """The deliveries of one connection, in order, until it ends."""

    def __init__(self, link: Link, prefetch: int) -> None:
        self._link = link
        # The broker sends no more than the prefetch unsettled; one place is for the end.
        self._inbox: asyncio.Queue[Delivery | None] = asyncio.Queue(prefetch + 1)
        self.ended = False

    async def receive(self, message: DeliveredMessage) -> None:
        if not self.ended:
            self._inbox.put_nowait(_to_delivery(self._link, message))

    def end(self, *_: object) -> None:
        if not self.ended:
            self.ended = True
            self._inbox.put_nowait(None)

    async def hand_over(self, on_delivery: OnDelivery) -> None:
        while True:
            delivery = await self._inbox.get()
            if delivery is None or self.ended:
                return
            result = on_delivery(delivery)
            if isawaitable(result):
                await result

    async def close(self) -> None:
        self.ended = True
        await self._link.close()


async def _open_stream(address: BrokerAddress, queue: str, prefetch: int, exclusive: bool) -> _Stream:
    link = await open_link(address, "consume")
    stream = _Stream(link, prefetch)
    try:
        async with link.limited(CONNECT_TIMEOUT_S):
            channel = await link.channel()
            await channel.basic_qos(prefetch_count=prefetch)
            channel.on_consumer_cancel_callbacks.add(stream.end)
            channel.closing.add_done_callback(stream.end)
            await channel.basic_consume(queue, stream.receive, exclusive=exclusive)
    except amqp.CONNECTION_EXCEPTIONS as error:
        await link.close()
        raise translate(error) from error
    except BaseException:
        await link.close()
        raise
    return stream


def _to_delivery(link: Link, message: DeliveredMessage) -> Delivery:
    properties = message.header.properties
    headers = dict(properties.headers or {})
    count = headers.get("x-delivery-count")
    redelivered = bool(message.redelivered)
    return Delivery(
        body=message.body,
        user_id=properties.user_id or None,
        # At a first delivery the broker does not write this header: then it is the publisher's own invention.
        delivery_count=count if redelivered and isinstance(count, int) and count > 0 else 0,
        redelivered=redelivered,
        message_id=properties.message_id,
        headers=headers,
        settle=_Settle(link, message.channel, message.delivery_tag or 0),
    )


class _Settle:
    """Settles one delivery, once: a second time would make the broker close the channel."""

    def __init__(self, link: Link, channel: RawChannel, tag: int) -> None:
        self._link = link
        self._channel = channel
        self._tag = tag
        self._done = False

    async def __call__(self, *, taken: bool, requeue: bool) -> None:
        if self._done or not self._link.open:
            return
        self._done = True
        try:
            async with self._link.limited(SETTLE_TIMEOUT_S):
                if taken:
                    await self._channel.basic_ack(self._tag)
                else:
                    await self._channel.basic_reject(self._tag, requeue=requeue)
        except (Retryable, *amqp.CONNECTION_EXCEPTIONS):
            pass  # the channel is gone: the broker delivers it again

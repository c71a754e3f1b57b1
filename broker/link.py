"""One AMQP connection: opened with a time-out, its end noticed, its library's errors put into our words."""

import asyncio
import logging
import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Self

import aio_pika
from aio_pika import exceptions as amqp
from aiormq.channel import Channel as RawChannel
from yarl import URL

from broker.errors import (
    Blocked,
    Forbidden,
    HutchError,
    Misconfigured,
    NotFound,
    Refused,
    Retryable,
    Unavailable,
    Unproven,
)

CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 5.0
HEARTBEAT_S: Final = 15
FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 30.0

DOUBTFUL_TIMES: Final = 4
DOUBTFUL_S: Final = 3.0
"""An answer in doubt is believed when it came so often in a row, over so long: a broker that starts errs."""

# The libraries log each lost connection as an error of theirs, with its trace; we say it once, in our own words.
for _name in ("aio_pika", "aiormq"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class BrokerAddress:
    """Where the broker is, and who we are to it.

    Attributes:
        url: `amqp://` or `amqps://` with host, port and virtual host. May hold the credentials.
        user: Goes before the one in `url`; None: the one in `url`.
        password: Likewise.
        cafile: A file with the one certificate authority to trust for `amqps`; None: the system's.
    """

    url: str = field(repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    cafile: str | None = None

    @classmethod
    def parse(cls, url: str, cafile: str | None = None) -> Self:
        """Take the credentials out of an address, so that `url` may be shown and logged.

        Raises:
            Misconfigured: It is no `amqp` or `amqps` address.
        """
        parsed = _parse_url(url)
        return cls(str(parsed.with_user(None)), parsed.user, parsed.password, cafile)

    def full_url(self) -> URL:
        """The address with its credentials: a secret. Raises `Misconfigured` as `parse` does."""
        url = _parse_url(self.url)
        if self.user is not None:
            url = url.with_user(self.user).with_password(self.password)
        return url


def _parse_url(url: str) -> URL:
    try:
        parsed = URL(url)
    except ValueError as error:
        raise Misconfigured("the broker's address is not a URL") from error
    if parsed.scheme not in ("amqp", "amqps") or not parsed.host:
        raise Misconfigured("the broker's address must begin with amqp:// or amqps:// and name a host")
    return parsed


def next_delay_s(attempt: int, jitter: float) -> float:
    """How long to wait before connecting again.

    Args:
        attempt: How many attempts have failed in a row, at least 1.
        jitter: From 0 to 1, drawn anew each time: a thousand agents must not come back in one instant.
    """
    full = min(LAST_DELAY_S, FIRST_DELAY_S * float(2 ** min(attempt, 16)))
    return round(max(FIRST_DELAY_S, full * (0.5 + jitter / 2)), 3)


async def wait_or(event: asyncio.Event, delay_s: float) -> None:
    """Wait for a time, or until an event is set."""
    try:
        async with asyncio.timeout(delay_s):
            await event.wait()
    except TimeoutError:
        return


@dataclass
class Patience:
    """Which failures to connect or to consume are borne, and how many there were. Reads no clock itself."""

    attempts: int = 0
    doubtful_times: int = 0
    doubtful_since: float = 0.0

    def bears(self, error: HutchError, now: float) -> bool:
        """Note a failure. False: it is an answer, for the caller to have."""
        self.attempts += 1
        if isinstance(error, NotFound) or error.code == "not_allowed":
            self.doubtful_times += 1
            if self.doubtful_times == 1:
                self.doubtful_since = now
            return self.doubtful_times < DOUBTFUL_TIMES or now - self.doubtful_since < DOUBTFUL_S
        self.doubtful_times = 0
        return isinstance(error, Retryable)

    def delay_s(self) -> float:
        """How long to wait now."""
        return next_delay_s(self.attempts, secrets.randbelow(1001) / 1000)


class _Channel(RawChannel):
    """A channel that sends nothing more once the broker has closed it.

    The library's own goes on for some moments, for which the broker ends the whole connection (504), and nobody
    learns any more which of the publishes in flight was the bad one.
    """

    @property
    @asynccontextmanager
    async def lock(self) -> AsyncGenerator[None, None]:
        async with super().lock:
            if self._close_exception is not None:
                raise amqp.ChannelInvalidStateError("closed by the broker")
            yield


class Link:
    """An open connection. Use `open_link`; its channels end with it.

    Attributes:
        lost: It has ended, whoever ended it.
    """

    def __init__(self, connection: aio_pika.Connection) -> None:
        self._connection = connection
        self._scopes: set[asyncio.Timeout] = set()
        self.lost = False
        connection.close_callbacks.add(self._on_close)

    def _on_close(self, *_: object) -> None:
        self.lost = True
        # A publish may be waiting for room in a queue that nobody will empty any more: end its time-out now.
        for scope in self._scopes:
            scope.reschedule(asyncio.get_running_loop().time())

    @property
    def open(self) -> bool:
        """Whether it can be used. False as soon as its end is known."""
        transport = self._connection.transport
        return not self.lost and transport is not None and not transport.connection.is_closed

    @asynccontextmanager
    async def limited(self, timeout_s: float) -> AsyncIterator[None]:
        """Give what is inside some time, and end it early when the connection ends.

        Raises:
            Blocked: The time is over, and the broker has blocked this connection.
            Unavailable: The time is over, or the connection has ended.
        """
        try:
            async with asyncio.timeout(timeout_s) as scope:
                self._scopes.add(scope)
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
        except TimeoutError as error:
            raise await self._why_timed_out() from error
        except asyncio.CancelledError as error:
            # The library rejects what waits with a cancellation of its own when the connection ends.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable("the connection to the broker has ended") from error

    async def _why_timed_out(self) -> HutchError:
        if not self.open:
            return Unavailable("the connection to the broker has ended")
        if await self.is_blocked():
            return blocked_by_alarm()
        return Unavailable("the broker did not answer in time")

    async def is_blocked(self) -> bool:
        """Whether the broker has said that it reads no more from this connection (an alarm)."""
        transport = self._connection.transport
        if transport is None:
            return False
        try:
            async with asyncio.timeout(0):
                await transport.ready()
        except TimeoutError:
            return True
        return False

    async def channel(self) -> RawChannel:
        """Open a channel in confirm mode. The caller keeps it, and limits the time."""
        transport = self._connection.transport
        if transport is None or not self.open:
            raise Unavailable("the connection to the broker has ended")
        raw = transport.connection
        number = next(number for number in count(1) if number not in raw.channels)
        channel = _Channel(raw, number, publisher_confirms=True, on_return_raises=True)
        raw.channels[number] = channel
        await channel.open()
        return channel

    async def close(self) -> None:
        """End the connection and what is on it, within a few seconds, come what may."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()
        except (TimeoutError, *amqp.CONNECTION_EXCEPTIONS):
            pass  # the other side is gone or does not listen: nothing is owed to it
        finally:
            self._on_close()


def blocked_by_alarm() -> Blocked:
    """The error of a publish on a connection that the broker has blocked."""
    return Blocked("the broker is short of memory or disk, and takes no messages for now")


async def open_link(address: BrokerAddress, purpose: str) -> Link:
    """Connect once.

    Args:
        address: Where to, and as whom.
        purpose: Shown to operators in the broker's list of connections.

    Raises:
        Unavailable: Nobody there, no answer in time, or a certificate that is not trusted.
        Forbidden: The credentials are not valid (any more). With code `not_allowed`: too many connections of this
            user, or no access to the virtual host; a broker that stops just now may say so too.
        Misconfigured: The address cannot be used.
    """
    url = address.full_url().update_query(heartbeat=str(HEARTBEAT_S), name=f"hutch {purpose}")
    context = await asyncio.to_thread(_make_ssl_context, address.cafile) if url.scheme == "amqps" else None
    connection = aio_pika.Connection(url, ssl_context=context)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
    except BaseException as error:
        await connection.close()
        if isinstance(error, TimeoutError):
            raise Unavailable("the broker did not answer in time") from error
        if isinstance(error, amqp.CONNECTION_EXCEPTIONS):
            raise translate(error) from error
        raise
    return Link(connection)


def _make_ssl_context(cafile: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise Misconfigured(f"the broker's certificate authority cannot be read from {cafile}") from error


def translate(error: BaseException) -> HutchError:
    """Put an error of the library into our words. The broker's own text decides where its codes are ambiguous."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return Unproven("the broker shows a certificate that is not trusted here")
    if isinstance(error, amqp.PublishError):
        return NotFound("no queue takes this message: is the exchange bound?", code="no_route")
    if isinstance(error, amqp.DeliveryError):
        return Blocked("the broker refused the message: its queue is full")
    if isinstance(error, amqp.InvalidFrameError) and "Connection.Close" in text:
        # The library hides what the broker said as it closed the door: too many connections of one user, no right to
        # the virtual host, or a broker that stops just now.
        return Forbidden("the broker allows this user no (further) connection", code="not_allowed")
    if isinstance(error, amqp.ProbableAuthenticationError):
        return Forbidden("the broker refused the credentials: link the device again")
    if "in exclusive use" in text or "RESOURCE_LOCKED" in text:
        return Refused("another consumer holds this queue", code="in_use")
    # What a broker says of its own objects while it starts or stops: they are there, and cannot be reached yet.
    if any(
        sign in text
        for sign in ("is down", "inaccessible", "stopped by supervisor", "due to timeout", "limit")
    ):
        return Unavailable(f"the broker is not ready: {text}")
    if "ACCESS_REFUSED" in text or "NOT_ALLOWED" in text or "user_id property" in text:
        return Forbidden(f"the broker refused access: {text}")
    if "NOT_FOUND" in text:
        return NotFound(f"the broker has no such thing: {text}")
    if "PRECONDITION_FAILED" in text and "message size" in text:
        return Refused("the message is larger than the broker takes", code="too_large")
    return Unavailable(f"the broker cannot be reached: {error!r}")

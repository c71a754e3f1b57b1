"""Speak HTTP with the service: one session a server, and its errors in our own words."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec
from yarl import URL

from agent.errors import NoService, StoreFull
from broker.errors import (
    Corrupt,
    CursorUnknown,
    Forbidden,
    HutchError,
    Misconfigured,
    NotFound,
    Refused,
    Unavailable,
    Unproven,
)

_CONNECT_TIMEOUT_S: Final = 10
_IDLE_TIMEOUT_S: Final = 60
_CLOSE_TIMEOUT_S: Final = 2
_ERROR_BODY_LIMIT_BYTES: Final = 64 * 1024
# Idle, never total: a gigabyte over a slow line is no fault.
_TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_IDLE_TIMEOUT_S
)


class _ErrorBody(msgspec.Struct):
    code: str = ""
    message: str = ""


class Http:
    """Connections to one server, kept alive between calls. Many calls may run at once.

    Args:
        url: Of the server; paths of calls are added to it.
        credential: `<device id>.<secret>`, or None before the device is linked.
        cafile: The certificate authority to trust, alone; None: the system's.
    """

    def __init__(self, url: str, credential: str | None, cafile: Path | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        self._cafile = cafile
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Calls that run fail with `Unavailable`. Calling anew opens anew."""
        session, self._session = self._session, None
        if session is not None:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await session.close()

    async def move(self, url: str) -> None:
        """From the next call on the server is there. Calls that run fail with `Unavailable`, as at the end."""
        self._url, before = url.rstrip("/"), self._url
        if self._url != before:
            with contextlib.suppress(TimeoutError):  # who is silent is left
                await self.close()

    @asynccontextmanager
    async def call(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make one call. Its answer is read with `pieces` or `read_all`; what else the caller does inside the block
        is the caller's own, errors included.

        Args:
            method: HTTP's.
            path: Below the server's URL, encoded.
            options: As `aiohttp.ClientSession.request` takes them.

        Raises:
            Unavailable: No connection, a broken one, silence for 60 s, or the server says to come back later.
            Forbidden, NotFound, CursorUnknown, Refused: As the server answered, with its code.
            Misconfigured: The URL or the certificate file is none.
        """
        with self._translated():
            response = await self._open().request(method, self._url + path, allow_redirects=False, **options)
        try:
            if response.status >= 300:
                raise await self._refusal(response)
            yield response
        except BaseException:
            response.close()  # half-read: no other call may use this connection
            raise
        finally:
            response.release()

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The answer's bytes as they arrive. Raises `Unavailable` when they break off."""
        while True:
            with self._translated():
                data = await response.content.readany()
            if not data:
                return
            yield data

    async def read_all(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        """The whole answer. Raises `Unavailable` when it breaks off, `Corrupt` when it is longer than `limit` bytes."""
        body = bytearray()
        async for data in self.pieces(response):
            body += data
            if len(body) > limit:
                raise Corrupt("the server's answer has no end")
        return bytes(body)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.InvalidURL as error:
            raise Misconfigured(f"{self._url} is no address of a server") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unproven(f"{self._url} shows a certificate that this device does not trust") from error
        except aiohttp.ClientResponseError as error:
            raise no_service(self._url, "what came is not HTTP") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(_why_unreachable(URL(self._url), error)) from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> HutchError:
        body = _ErrorBody()
        try:
            body = msgspec.json.decode(
                await self.read_all(response, _ERROR_BODY_LIMIT_BYTES), type=_ErrorBody
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, Corrupt):
            pass  # some other server's page
        if not body.code:  # what a service of ours refuses, it gives a code
            return no_service(self._url, f"it answered {response.status}")
        return _error_of(response.status, body)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._trust(), limit=16)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, timeout=_TIMEOUT, trust_env=False
            )
        return self._session

    def _trust(self) -> ssl.SSLContext | bool:
        if self._cafile is None:
            return True
        try:
            return ssl.create_default_context(cafile=self._cafile)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(f"{self._cafile} holds no certificate to trust: {error}") from error


def no_service(url: str, why: str) -> NoService:
    """What answers at an address is no Hutch service."""
    return NoService(f"no Hutch service answers at {url} ({why})")


def _why_unreachable(url: URL, error: Exception) -> str:
    """Which host and port, and what to check there."""
    what = f"{url} cannot be reached: "
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"{what}no host {url.host} is known here. Check the address, and this device's network"
        case aiohttp.ClientConnectorSSLError():
            return (
                f"{what}{url.host}, port {url.port}, does not speak TLS. Check the address: is it plain http?"
            )
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno
            cause = f" ({os.strerror(number)})" if number is not None and number > 0 else ""
            return (
                f"{what}{url.host} takes no connection on port {url.port}{cause}."
                " Check the address, and that the service runs there"
            )
        case aiohttp.ConnectionTimeoutError():
            return (
                f"{what}{url.host} is silent on port {url.port}."
                " Check the address, the network, and any firewall on the way"
            )
        case _:  # it was reached, and then it broke off
            return f"{what}{url.host}, port {url.port}, broke off ({type(error).__name__}: {error})"


def _error_of(status: int, body: _ErrorBody) -> HutchError:
    message = body.message or f"the server answered {status}"
    code = body.code or None
    if status in (401, 403):
        return Forbidden(message, code)
    if status == 404:
        return NotFound(message, code)
    if code == CursorUnknown.code:
        return CursorUnknown(message)
    if code == StoreFull.code:
        return StoreFull(message)
    if status in (408, 429) or status >= 500:
        return Unavailable(message)
    return Refused(message, code)

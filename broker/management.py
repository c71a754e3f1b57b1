"""The broker's management API: who may connect, which queues stand, what is bound to what.

Only the service speaks it: devices have no access. Every call says what shall be, and may be made again.
"""

import base64
import hashlib
import secrets
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from broker import topology
from broker.errors import Forbidden, HutchError, Misconfigured, NotFound, Refused, Unavailable
from broker.topology import Binding, Exchange, Queue

CALL_TIMEOUT_S: Final = 15.0
MAX_CALLS_AT_ONCE: Final = 8


def hash_password(password: str) -> str:
    """A password as RabbitMQ stores it: base64 of a salt of 4 bytes and the SHA-256 of salt and password.

    It is salted anew each time. Meant for random passwords of full length, which need no slow hash.
    """
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode()


class Management:
    """A client of the management API. Use as an async context manager; calls may run concurrently.

    Args:
        url: `http://user:password@host:port`, of a user with the tag `administrator`.
        vhost: The virtual host that all calls are about.

    Every call raises:
        Unavailable: The broker cannot be reached, or did not answer in time.
        Misconfigured: It refused the credentials of `url`.
        NotFound: What the call needs is not there.
        Refused: It would not do it; with code `inequivalent`, the thing stands already and is another.
    """

    def __init__(self, url: str, vhost: str = topology.VHOST) -> None:
        parsed = URL(url)
        if parsed.user is None or parsed.scheme not in ("http", "https"):
            raise Misconfigured(
                "the broker's management address must be http(s):// and hold a user and password"
            )
        self._authorization = aiohttp.encode_basic_auth(parsed.user, parsed.password or "")
        self._user = parsed.user
        self._base = str(parsed.with_user(None)).rstrip("/")
        self._vhost = vhost
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": self._authorization},
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=MAX_CALLS_AT_ONCE),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- what stands

    async def ensure_topology(self) -> None:
        """Make the virtual host (with all rights for this client's own user), exchanges, queues and bindings."""
        await self._call("PUT", "vhosts", self._vhost, body={})
        await self.put_permissions(self._user, {"configure": ".*", "write": ".*", "read": ".*"})
        for exchange in topology.EXCHANGES:
            await self.ensure_exchange(exchange)
        for queue in topology.QUEUES:
            await self.ensure_queue(queue)
        for binding in topology.BINDINGS:
            await self.bind(binding)

    async def ensure_exchange(self, exchange: Exchange) -> None:
        """Declare an exchange."""
        body = {
            "type": exchange.kind,
            "durable": True,
            "auto_delete": False,
            "internal": False,
            "arguments": {},
        }
        await self._call("PUT", "exchanges", self._vhost, exchange.name, body=body)

    async def ensure_queue(self, queue: Queue) -> None:
        """Declare a queue. `Refused` (`inequivalent`) when it stands with other arguments."""
        body = {"durable": True, "auto_delete": False, "arguments": dict(queue.arguments)}
        await self._call("PUT", "queues", self._vhost, queue.name, body=body)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all that is in it. One that is not there is fine."""
        await self._delete("queues", self._vhost, name)

    async def list_queues(self, prefix: str = "") -> list[str]:
        """Names of the queues that begin so."""
        found = await self._call(
            "GET", "queues", self._vhost, query={"columns": "name", "disable_stats": "true"}
        )
        return [queue["name"] for queue in found if queue["name"].startswith(prefix)]

    async def bind(self, binding: Binding) -> None:
        """Bind a queue to an exchange. `NotFound` when either is not there."""
        await self._call(
            "POST", *self._between(binding), body={"routing_key": binding.routing_key, "arguments": {}}
        )

    async def unbind(self, binding: Binding) -> None:
        """Take a binding away. One that is not there is fine."""
        await self._delete(*self._between(binding), binding.routing_key or "~")

    async def list_bindings(self, *, exchange: str | None = None, queue: str | None = None) -> list[Binding]:
        """The bindings from an exchange to queues, or those to a queue (the default exchange's own left out).

        Raises:
            NotFound: There is no such exchange or queue.
        """
        if exchange is not None:
            found = await self._call("GET", "exchanges", self._vhost, exchange, "bindings", "source")
        elif queue is not None:
            found = await self._call("GET", "queues", self._vhost, queue, "bindings")
        else:
            raise TypeError("list_bindings needs an exchange or a queue")
        bindings = (
            Binding(exchange=row["source"], queue=row["destination"], routing_key=row["routing_key"])
            for row in found
            if row["source"] and row["destination_type"] == "queue"
        )
        return [binding for binding in bindings if queue is None or binding.queue == queue]

    def _between(self, binding: Binding) -> tuple[str, ...]:
        return ("bindings", self._vhost, "e", binding.exchange, "q", binding.queue)

    # --- who may connect

    async def put_user(self, name: str, password_hash: str, limits: dict[str, int] | None = None) -> None:
        """Make a user, or give it another password.

        Args:
            name: Its name.
            password_hash: From `hash_password`.
            limits: `max-connections` and `max-channels`, as far as they shall be set.
        """
        body = {
            "password_hash": password_hash,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": "",
        }
        await self._call("PUT", "users", name, body=body)
        for limit, value in (limits or {}).items():
            await self._call("PUT", "user-limits", name, limit, body={"value": value})

    async def put_permissions(self, name: str, permissions: dict[str, str]) -> None:
        """Say what a user may do: regular expressions under `configure`, `write` and `read`."""
        await self._call("PUT", "permissions", self._vhost, name, body=permissions)

    async def delete_user(self, name: str) -> None:
        """Delete a user; the broker then closes its connections by itself. One that is not there is fine."""
        await self._delete("users", name)

    async def list_users(self) -> dict[str, str]:
        """All users of the broker, each with its password hash (a secret of sorts: compare, do not log)."""
        found = await self._call("GET", "users", query={"columns": "name,password_hash"})
        return {user["name"]: user["password_hash"] for user in found}

    async def list_limits(self) -> dict[str, dict[str, int]]:
        """The limits of all users that have any: by user, then as `put_user` takes them."""
        found = await self._call("GET", "user-limits")
        return {row["user"]: dict(row["value"]) for row in found}

    async def list_permissions(self) -> dict[str, dict[str, str]]:
        """What each user may do in this virtual host, as `put_permissions` takes it. Others are not in it."""
        found = await self._call("GET", "vhosts", self._vhost, "permissions")
        return {row["user"]: {key: row[key] for key in ("configure", "write", "read")} for row in found}

    async def close_connections(self, user: str) -> None:
        """Close the open connections of a user that the broker has on record. None open is fine.

        The record is written a moment after a connection was opened: one that must go is closed again until it has.
        """
        await self._delete("connections", "username", user)

    # --- how it is asked

    async def _delete(self, *path: str) -> None:
        try:
            await self._call("DELETE", *path)
        except NotFound:
            pass

    async def _call(
        self, method: str, *path: str, body: dict[str, Any] | None = None, query: dict[str, str] | None = None
    ) -> Any:
        if self._session is None:
            raise RuntimeError("Management is used inside `async with`")
        # Quoted here and handed over as it is: a name may hold a slash.
        quoted = "/".join(quote(part, safe="") for part in path)
        url = URL(f"{self._base}/api/{quoted}", encoded=True).with_query(query or {})
        try:
            async with self._session.request(method, url, json=body) as answer:
                if answer.status >= 400:
                    raise _to_error(answer.status, method, path[0], await answer.text())
                return await answer.json() if method == "GET" else None
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Unavailable(f"the broker's management API cannot be reached: {error!r}") from error


def _to_error(status: int, method: str, kind: str, text: str) -> HutchError:
    what = f"the broker's management API answered {status} to {method} {kind}"
    if status == 401:
        return Misconfigured(f"{what}: check user and password of the management address")
    if status == 403:
        return Forbidden(what)
    if status == 404:
        return NotFound(what)
    if status >= 500 or status == 429:
        return Unavailable(what)
    if "inequivalent" in text:
        return Refused(f"{what}: it stands already, and is another", code="inequivalent")
    return Refused(f"{what}: {text[:300]}")

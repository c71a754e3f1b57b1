"""Which device calls: asked of PostgreSQL at each call, so that a revoked one is cut off at once."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from aiohttp import hdrs, web

from broker.errors import Forbidden
from metadata.accounts import secret_matches
from metadata.registry import Credential, Registry
from metadata.server.answers import DEVICE_ID, Handler
from metadata.server.services import SERVICES

DeviceHandler = Callable[[web.Request, Credential], Awaitable[web.StreamResponse]]


def parse_credential(header: str | None) -> tuple[UUID, str] | None:
    """Read `Bearer <device id>.<secret>`. None: it is not of that form."""
    kind, _, token = (header or "").partition(" ")
    device, dot, secret = token.strip().partition(".")
    if kind.lower() != "bearer" or not dot or not secret:
        return None
    try:
        return UUID(device), secret
    except ValueError:
        return None


async def authenticate(registry: Registry, header: str | None) -> Credential:
    """The device that a request's `Authorization` names and proves. Raises `Forbidden`: unknown, wrong and revoked
    are answered alike.
    """
    parsed = parse_credential(header)
    if parsed is None:
        raise Forbidden("this call needs the credential of a linked device")
    device_id, secret = parsed
    known = await registry.credential(device_id)
    if not secret_matches(known.secret_hash if known else None, secret) or known is None or known.revoked:
        raise Forbidden(
            "this device was revoked, or was never linked here: run `hutch unlink`, then link it again"
        )
    if known.unseen:
        await registry.mark_seen(device_id)
    return known


def for_device(handler: DeviceHandler) -> Handler:
    """A handler that only a linked device reaches, and that is told which."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        caller = await authenticate(request.app[SERVICES].registry, request.headers.get(hdrs.AUTHORIZATION))
        request[DEVICE_ID] = str(caller.device_id)
        return await handler(request, caller)

    return guarded

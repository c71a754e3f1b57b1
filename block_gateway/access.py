"""Who may do what: asked of PostgreSQL at every request, never remembered, so that a revocation counts at once."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from block_gateway.sql import QUERIES
from broker.errors import Forbidden, NotFound
from broker.model import Role
from metadata.database import translate

_QUERY_TIMEOUT_S: Final = 30


class Unauthenticated(Forbidden):
    """No credential, or one that is not valid (any more)."""


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What a device says of itself. Of the secret only its SHA-256 is kept."""

    device_id: UUID
    secret_hash: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A device of a member of a workspace, as it was when it was asked for."""

    credential: Credential
    user_id: UUID
    workspace_id: UUID
    role: Role

    def require_writer(self) -> None:
        """Raise `Forbidden` for a viewer."""
        if self.role is Role.VIEWER:
            raise Forbidden("a viewer of this workspace cannot upload")


def parse_credential(header: str | None) -> Credential:
    """Read an `Authorization` header: `Bearer <device id>.<secret>`. Raises `Unauthenticated` for anything else."""
    kind, _, token = (header or "").partition(" ")
    device, dot, secret = token.strip().partition(".")
    try:
        device_id = UUID(device)
    except ValueError:
        raise Unauthenticated("this needs a device's credential") from None
    if kind.lower() != "bearer" or not dot or not secret:
        raise Unauthenticated("this needs a device's credential")
    return Credential(device_id=device_id, secret_hash=hashlib.sha256(secret.encode()).digest())


class Access:
    """The gate. Any number of requests may ask at once.

    Args:
        pool: An `asyncpg.Pool`.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def authorize(self, credential: Credential, workspace_id: UUID) -> Caller:
        """Say who calls.

        Raises:
            Unauthenticated: The credential is not valid (any more).
            NotFound: No such workspace, or the user is no member of it: the two look the same.
            Unavailable: PostgreSQL does not answer.
        """
        with translate():
            async with asyncio.timeout(_QUERY_TIMEOUT_S):
                row = await self._pool.fetchrow(
                    QUERIES["authorize"], credential.device_id, credential.secret_hash, workspace_id
                )
        if row is None:
            raise Unauthenticated("this device is not linked (any more)")
        if row["role"] is None:
            raise NotFound("there is no such workspace")
        return Caller(
            credential=credential, user_id=row["user_id"], workspace_id=workspace_id, role=Role(row["role"])
        )

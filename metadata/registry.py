"""Who there is: accounts, devices, workspaces and their members, staged bodies, and what the broker should hold.

Each method is one business operation, and one transaction. All of them raise `Unavailable` when PostgreSQL cannot
serve. The journal's readers stand in `metadata/catch_up.py`; the commit in `metadata/store.py`.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from broker.errors import Forbidden, NotFound, Refused
from broker.model import Cursor, Role, first_chain
from metadata import sql
from metadata.database import translate
from metadata.state import Verdict

MAX_STAGED_BYTES_PER_DEVICE: Final = 256 * 1024**2

_Q = sql.load("registry.sql")


@dataclass(frozen=True, kw_only=True)
class Account:
    """A person, with the password's hash."""

    user_id: UUID
    email: str
    password_hash: str


@dataclass(frozen=True, kw_only=True)
class UserRecord:
    """A person, as an operator sees them. `quota_bytes` None: no quota. `devices` counts the live ones."""

    user_id: UUID
    email: str
    quota_bytes: int | None
    used_bytes: int
    created_at: datetime
    devices: int


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A device, as the check of its credential needs it. `unseen`: `mark_seen` is due."""

    device_id: UUID
    user_id: UUID
    email: str
    name: str
    secret_hash: bytes
    queue_name: str
    revoked: bool
    unseen: bool


@dataclass(frozen=True, kw_only=True)
class NewDevice:
    """A device that is being linked. Only the hash of its secret is kept."""

    device_id: UUID
    user_id: UUID
    name: str
    secret_hash: bytes
    broker_password_hash: str
    queue_name: str


@dataclass(frozen=True, kw_only=True)
class DeviceRecord:
    """A live device, as its owner sees it."""

    device_id: UUID
    name: str
    created_at: datetime
    seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A workspace, as one member sees it. `owner` is the owner's address."""

    workspace_id: UUID
    name: str
    role: Role
    owner: str
    head: Cursor


@dataclass(frozen=True, kw_only=True)
class HeldCommit:
    """A commit that the guard holds, as the user whose device made it sees it. See `holds` in schema.sql."""

    hold_id: UUID
    workspace_id: UUID
    device_id: UUID
    device_name: str
    queue_name: str
    verdict: Verdict
    deleted: int
    rewritten: int
    to_follow: int
    recent: int
    deleted_paths: Sequence[str]
    rewritten_paths: Sequence[str]
    held_at: datetime


@dataclass(frozen=True, kw_only=True)
class DesiredDevice:
    """What the broker should hold of a device. `revoked`: nothing."""

    device_id: UUID
    queue_name: str
    broker_password_hash: str
    revoked: bool
    workspace_ids: frozenset[UUID]


class Registry:
    """The registry in PostgreSQL. May be used by many tasks at once; holds a connection only within a call."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    # --- people

    async def add_user(self, email: str, password_hash: str, quota_bytes: int | None = None) -> UUID:
        """Add a person by folded address. Raises `Refused` with code `user_exists` when there is one."""
        with translate():
            user_id = await self._pool.fetchval(_Q["add_user"], uuid4(), email, password_hash, quota_bytes)
        if user_id is None:
            raise Refused("there is an account of that address already", "user_exists")
        return _uuid(user_id)

    async def user_by_email(self, email: str) -> Account | None:
        """The account of a folded address; None when there is none."""
        with translate():
            row = await self._pool.fetchrow(_Q["user_by_email"], email)
        return Account(**_fields(row)) if row else None

    async def list_users(self) -> list[UserRecord]:
        """Everybody, by address."""
        with translate():
            rows = await self._pool.fetch(_Q["list_users"])
        return [UserRecord(**_fields(row)) for row in rows]

    # --- devices

    async def add_device(self, device: NewDevice) -> None:
        """Write down that the broker should know this device. It does so once the follower has been there."""
        with translate():
            await self._pool.execute(
                _Q["add_device"],
                device.device_id,
                device.user_id,
                device.name,
                device.secret_hash,
                device.broker_password_hash,
                device.queue_name,
            )

    async def credential(self, device_id: UUID) -> Credential | None:
        """What a device's secret is checked against, revoked or not; None when there is no such device."""
        with translate():
            row = await self._pool.fetchrow(_Q["device_for_credential"], device_id)
        return Credential(**_fields(row)) if row else None

    async def mark_seen(self, device_id: UUID) -> None:
        """Note that the device has called."""
        with translate():
            await self._pool.execute(_Q["mark_seen"], device_id)

    async def list_devices(self, user_id: UUID) -> list[DeviceRecord]:
        """A user's live devices, oldest first."""
        with translate():
            rows = await self._pool.fetch(_Q["list_devices"], user_id)
        return [DeviceRecord(**_fields(row)) for row in rows]

    async def revoke_device(self, device_id: UUID, user_id: UUID | None = None) -> None:
        """Cut a device off for good, and drop its staged bodies. Done again, it changes nothing.

        The broker does not know yet: make the follower follow.

        Args:
            device_id: Which.
            user_id: Whose it must be; None: anyone's (an operator asks).

        Raises:
            NotFound: There is no such device, or it is another user's.
        """
        with translate():
            found = await self._pool.fetchval(_Q["revoke_device"], device_id, user_id)
        if found is None:
            raise NotFound("there is no such device")

    # --- workspaces

    async def workspaces_of(self, user_id: UUID) -> list[Workspace]:
        """All workspaces that a user is a member of, oldest first."""
        with translate():
            rows = await self._pool.fetch(_Q["workspaces_of_user"], user_id)
        return [_workspace(row) for row in rows]

    async def workspace_of_member(self, workspace_id: UUID, user_id: UUID) -> Workspace:
        """One workspace. Raises `NotFound` when there is none, or the user is no member: the two look the same."""
        with translate():
            row = await self._pool.fetchrow(_Q["workspace_of_member"], workspace_id, user_id)
        if row is None:
            raise NotFound("there is no such workspace")
        return _workspace(row)

    async def make_workspace(self, owner_id: UUID, name: str) -> tuple[Workspace, bool]:
        """The owner's workspace of that name, and whether it was made now. Many may ask at once: one makes it."""
        made_id = uuid4()
        with translate():
            async with self._pool.acquire() as connection, connection.transaction():
                made = await connection.fetchval(
                    _Q["add_workspace"], made_id, owner_id, name, first_chain(made_id)
                )
                if made is not None:
                    await connection.execute(_Q["add_owner"], made, owner_id)
                    found = made_id
                else:
                    found = await connection.fetchval(_Q["own_workspace"], owner_id, name)
        return await self.workspace_of_member(_uuid(found), owner_id), made is not None

    async def start_epoch(self) -> int:
        """Let no device's cursor be known any more, in any workspace: after a restore. Returns how many workspaces."""
        with translate():
            tag: str = await self._pool.execute(_Q["start_epoch"])
        return int(tag.rpartition(" ")[2])

    async def member_devices(self, workspace_id: UUID) -> dict[UUID, str]:
        """The queue of each live device of the workspace's members."""
        with translate():
            rows = await self._pool.fetch(_Q["member_devices"], workspace_id)
        return {_uuid(row["device_id"]): row["queue_name"] for row in rows}

    # --- held commits

    async def list_holds(self, workspace_id: UUID, user_id: UUID) -> list[HeldCommit]:
        """What the guard holds of a user's devices in a workspace, the oldest first."""
        with translate():
            rows = await self._pool.fetch(_Q["list_holds"], workspace_id, user_id)
        return [_held(row) for row in rows]

    async def accept_hold(self, workspace_id: UUID, hold_id: UUID, user_id: UUID) -> HeldCommit:
        """Let the device do as much as was held. Done again, it changes nothing.

        Raises:
            NotFound: There is no such hold of this user's, or the device has asked for something else since, or it is to
                be taken back already.
        """
        return await self._decide_hold("accept_hold", Verdict.ACCEPTED, workspace_id, hold_id, user_id)

    async def undo_hold(self, workspace_id: UUID, hold_id: UUID, user_id: UUID) -> HeldCommit:
        """Have the device take back what was held. Done again, it changes nothing. Raises as `accept_hold` does."""
        return await self._decide_hold("undo_hold", Verdict.UNDONE, workspace_id, hold_id, user_id)

    async def release_hold(self, hold_id: UUID, device_id: UUID) -> None:
        """The device has taken back what was held: its commits are taken again. Done again, it changes nothing."""
        with translate():
            await self._pool.execute(_Q["release_hold"], hold_id, device_id)

    async def _decide_hold(
        self, query: str, verdict: Verdict, workspace_id: UUID, hold_id: UUID, user_id: UUID
    ) -> HeldCommit:
        with translate():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_Q["lock_workspace"], workspace_id)
                rows = await connection.fetch(_Q["list_holds"], workspace_id, user_id)
                if hold_id in [row["hold_id"] for row in rows]:
                    await connection.execute(_Q[query], hold_id)
                    rows = await connection.fetch(_Q["list_holds"], workspace_id, user_id)
        for held in map(_held, rows):
            if held.hold_id == hold_id and held.verdict is verdict:
                return held
        raise NotFound("nothing of that kind is held any more: look again")

    # --- staged bodies

    async def stage_body(self, device_id: UUID, digest: bytes, body: bytes) -> None:
        """Keep a commit's body for a day. The same body again begins its day again.

        Raises:
            Forbidden: The device was revoked meanwhile.
            Refused: With code `over_limit`, when the device has staged too much already.
        """
        with translate():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.fetchval(_Q["lock_device"], device_id) is None:
                    raise Forbidden("the device was revoked")
                staged = await connection.fetchval(_Q["staged_size"], device_id, digest)
                if staged + len(body) > MAX_STAGED_BYTES_PER_DEVICE:
                    raise Refused("this device has too many bodies staged: commit those first", "over_limit")
                await connection.execute(_Q["stage_body"], device_id, digest, body)

    async def sweep(self) -> tuple[int, int]:
        """Drop what is past its time. Returns how many staged bodies and proofs of upload went."""
        with translate():
            bodies = await self._pool.execute(_Q["sweep_staged_bodies"])
            proofs = await self._pool.execute(_Q["sweep_chunk_proofs"])
            await self._pool.execute(_Q["sweep_touches"])
            await self._pool.execute(_Q["sweep_holds"])
        return _count(bodies), _count(proofs)

    # --- desired broker state

    async def desired_devices(self, device_ids: Iterable[UUID] | None = None) -> list[DesiredDevice]:
        """What the broker should hold of these devices (None: of all), revoked ones included."""
        with translate():
            rows = await self._pool.fetch(
                _Q["desired_devices"], None if device_ids is None else list(device_ids)
            )
        return [_desired(row) for row in rows]

    async def replace_queue(self, device_id: UUID, queue_name: str) -> None:
        """Give a live device another queue: what is in the old one is not for it any more."""
        with translate():
            await self._pool.execute(_Q["replace_queue"], device_id, queue_name)

    @asynccontextmanager
    async def device_state(self, device_id: UUID) -> AsyncIterator[DesiredDevice | None]:
        """What the broker should hold of one device, with nobody else following it meanwhile, in any process.

        None: there is no such device. Holds a connection until the block ends: do in it what the broker needs, in
        bounded time, and nothing else.
        """
        with translate():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_Q["lock_device_state"], device_id)
                rows = await connection.fetch(_Q["desired_devices"], [device_id])
                yield _desired(rows[0]) if rows else None

    @asynccontextmanager
    async def comparison_turn(self) -> AsyncIterator[bool]:
        """Whether it is this process that compares the whole broker now. Holds a connection until the block ends."""
        with translate():
            async with self._pool.acquire() as connection, connection.transaction():
                yield bool(await connection.fetchval(_Q["try_lock_comparison"]))


def _uuid(value: Any) -> UUID:
    return UUID(int=value.int)  # the driver's own subclass does not pickle, nor encode


def _fields(row: Any) -> dict[str, Any]:
    return {key: _uuid(value) if isinstance(value, UUID) else value for key, value in row.items()}


def _workspace(row: Any) -> Workspace:
    return Workspace(
        workspace_id=_uuid(row["workspace_id"]),
        name=row["name"],
        role=Role(row["role"]),
        owner=row["owner"],
        head=Cursor(epoch=row["epoch"], seq=row["head_seq"], chain=row["head_chain"]),
    )


def _held(row: Any) -> HeldCommit:
    return HeldCommit(**{**_fields(row), "verdict": Verdict(row["verdict"])})


def _desired(row: Any) -> DesiredDevice:
    workspaces: Sequence[UUID] = row["workspace_ids"]
    return DesiredDevice(
        device_id=_uuid(row["device_id"]),
        queue_name=row["queue_name"],
        broker_password_hash=row["broker_password_hash"],
        revoked=row["revoked"],
        workspace_ids=frozenset(_uuid(each) for each in workspaces),
    )


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[-1])

"""A world's backing in a real database: rows put there by hand, commits through the real store."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from broker.model import Kind, Role, first_chain
from metadata.registry import Registry
from metadata.state import BatchResult, Decide, NewHold, Node, Submission
from metadata.store import Store

_NODE_COLUMNS = (
    "node_id, parent_id, name, kind, version, deleted, mode, mtime_ns, size_bytes, content_version, target,"
    " mounted_workspace_id, xattrs"
)


class PostgresBacking:
    """Of one database; many worlds may share it."""

    def __init__(self, pool: Any, name: str = "test") -> None:
        self.pool = pool
        self.store = Store(pool, name)

    async def add_user(self, user_id: UUID, quota_bytes: int | None = None) -> None:
        await self.pool.execute(
            "INSERT INTO users (user_id, email, password_hash, quota_bytes) VALUES ($1, $2, '', $3)",
            user_id,
            f"{user_id}@example.org",
            quota_bytes,
        )

    async def set_quota(self, user_id: UUID, quota_bytes: int | None) -> None:
        await self.pool.execute("UPDATE users SET quota_bytes = $2 WHERE user_id = $1", user_id, quota_bytes)

    async def add_device(self, device_id: UUID, user_id: UUID, queue_name: str) -> None:
        await self.pool.execute(
            "INSERT INTO devices (device_id, user_id, name, secret_hash, broker_password_hash, queue_name)"
            " VALUES ($1, $2, 'a device', $3, '', $4)",
            device_id,
            user_id,
            bytes(32),
            queue_name,
        )

    async def revoke(self, device_id: UUID) -> None:
        await self.pool.execute("UPDATE devices SET revoked_at = now() WHERE device_id = $1", device_id)

    async def add_workspace(self, workspace_id: UUID, owner_id: UUID) -> None:
        await self.pool.execute(
            "INSERT INTO workspaces (workspace_id, owner_id, name, head_chain) VALUES ($1, $2, $3, $4)",
            workspace_id,
            owner_id,
            str(workspace_id),
            first_chain(workspace_id),
        )
        await self.set_role(workspace_id, owner_id, Role.OWNER)

    async def set_role(self, workspace_id: UUID, user_id: UUID, role: Role | None) -> None:
        await self.pool.execute(
            "DELETE FROM workspace_members WHERE workspace_id = $1 AND user_id = $2", workspace_id, user_id
        )
        if role is not None:
            await self.pool.execute(
                "INSERT INTO workspace_members VALUES ($1, $2, $3)", workspace_id, user_id, role.value
            )

    async def add_chunk(self, hash_: bytes, raw_bytes: int) -> None:
        pack_id = uuid4()
        await self.pool.execute("INSERT INTO packs (pack_id, size_bytes) VALUES ($1, $2)", pack_id, raw_bytes)
        await self.pool.execute(
            "INSERT INTO chunks (hash, pack_id, pack_offset, stored_bytes, raw_bytes, codec)"
            " VALUES ($1, $2, 0, $3, $3, 0) ON CONFLICT DO NOTHING",
            hash_,
            pack_id,
            raw_bytes,
        )

    async def prove(self, user_id: UUID, hash_: bytes) -> None:
        await self.pool.execute(
            "INSERT INTO chunk_proofs VALUES ($1, $2, now() + interval '1 hour')", user_id, hash_
        )

    async def expire_proofs(self) -> None:
        await self.pool.execute("UPDATE chunk_proofs SET expires_at = now() - interval '1 second'")

    async def forget_versions(self, workspace_id: UUID, node_id: UUID) -> None:
        await self.pool.execute(
            "DELETE FROM versions WHERE workspace_id = $1 AND node_id = $2", workspace_id, node_id
        )

    async def stage(self, device_id: UUID, hash_: bytes, body: bytes) -> None:
        await self.pool.execute(
            "INSERT INTO staged_bodies (device_id, hash, body) VALUES ($1, $2, $3)", device_id, hash_, body
        )

    async def list_nodes(self, workspace_id: UUID) -> dict[UUID, Node]:
        rows = await self.pool.fetch(
            f"SELECT {_NODE_COLUMNS} FROM nodes WHERE workspace_id = $1", workspace_id
        )
        nodes = []
        for node_id, parent_id, name, kind, *rest in rows:
            nodes.append(Node(node_id, parent_id, name, Kind(kind), *rest))
        return {node.node_id: node for node in nodes}

    async def list_journal(self, workspace_id: UUID) -> list[tuple[bytes, bytes]]:
        rows = await self.pool.fetch(
            "SELECT entry, chain FROM journal WHERE workspace_id = $1 ORDER BY seq", workspace_id
        )
        return [(row["entry"], row["chain"]) for row in rows]

    async def manifest(self, workspace_id: UUID, node_id: UUID, version: int) -> bytes:
        manifest: bytes = await self.pool.fetchval(
            "SELECT manifest FROM versions WHERE workspace_id = $1 AND node_id = $2 AND version = $3",
            workspace_id,
            node_id,
            version,
        )
        return manifest

    async def used_bytes(self, user_id: UUID) -> int:
        used: int = await self.pool.fetchval("SELECT used_bytes FROM users WHERE user_id = $1", user_id)
        return used

    async def pass_time(self, time: timedelta) -> None:
        await self.pool.execute("UPDATE nodes SET made_at = made_at - $1::interval", time)
        await self.pool.execute("UPDATE touches SET touched_at = touched_at - $1::interval", time)
        await self.pool.execute("UPDATE holds SET expires_at = expires_at - $1::interval", time)

    async def list_holds(self, workspace_id: UUID) -> dict[UUID, NewHold]:
        rows = await self.pool.fetch(
            "SELECT device_id, hold_id, digest, request, deleted, rewritten, to_follow, recent, deleted_paths,"
            " rewritten_paths, ARRAY(SELECT hash FROM hold_chunks AS c"
            "   WHERE c.workspace_id = h.workspace_id AND c.device_id = h.device_id) AS chunks"
            " FROM holds AS h WHERE workspace_id = $1 AND (expires_at IS NULL OR expires_at > now())",
            workspace_id,
        )
        return {
            row["device_id"]: NewHold(
                hold_id=row["hold_id"],
                digest=row["digest"],
                request=row["request"],
                deleted=row["deleted"],
                rewritten=row["rewritten"],
                to_follow=row["to_follow"],
                recent=row["recent"],
                deleted_paths=tuple(row["deleted_paths"]),
                rewritten_paths=tuple(row["rewritten_paths"]),
                chunks=frozenset(row["chunks"]),
            )
            for row in rows
        }

    async def accept_hold(self, workspace_id: UUID, hold_id: UUID) -> None:
        await Registry(self.pool).accept_hold(workspace_id, hold_id, await self._user_of(hold_id))

    async def undo_hold(self, workspace_id: UUID, hold_id: UUID) -> None:
        await Registry(self.pool).undo_hold(workspace_id, hold_id, await self._user_of(hold_id))

    async def release_hold(self, hold_id: UUID, device_id: UUID) -> None:
        await Registry(self.pool).release_hold(hold_id, device_id)

    async def _user_of(self, hold_id: UUID) -> UUID:
        user_id: UUID | None = await self.pool.fetchval(
            "SELECT user_id FROM holds JOIN devices USING (device_id) WHERE hold_id = $1", hold_id
        )
        return user_id or uuid4()

    async def commit_batch(self, submissions: Sequence[Submission], decide: Decide) -> BatchResult:
        return await self.store.commit_batch(submissions, decide)

"""What is stored where: packs of chunks in the store, and the index in PostgreSQL that says who may have them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import structlog

from block_gateway.access import Access, Caller
from block_gateway.sql import QUERIES
from block_gateway.stores.contract import Store
from block_gateway.wire import Codec, Frame, Header
from broker.errors import HutchError, Unavailable
from metadata.database import translate

PACK_SIZE_BYTES: Final = 4 * 1024 * 1024
LARGE_CHUNK_SIZE_BYTES: Final = PACK_SIZE_BYTES // 2
"""From this stored size on a chunk is a pack of its own: gathering such would only copy them."""

LEASE: Final = timedelta(hours=24)
"""How long an uploaded chunk waits for the commit that uses it. A query for it begins the time anew."""

_QUERY_TIMEOUT_S: Final = 60
# An outage of PostgreSQL shorter than this costs an upload nothing: its pack is durable already.
_INDEX_DELAYS_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk lies."""

    header: Header
    pack_id: UUID
    offset: int

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.offset + self.header.stored_size


@dataclass
class Pack:
    """Proven chunks on their way into the store as one object. Each hash once."""

    pack_id: UUID = field(default_factory=uuid4)
    places: dict[bytes, Place] = field(default_factory=dict, repr=False)
    size: int = 0
    _parts: list[bytes] = field(default_factory=list, repr=False)

    def add(self, frame: Frame) -> None:
        """Append a chunk, unless it is in here already."""
        if frame.header.hash not in self.places:
            self.places[frame.header.hash] = Place(frame.header, self.pack_id, self.size)
            self._parts.append(frame.stored)
            self.size += frame.header.stored_size

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes keep it within a pack's size. An empty pack takes any chunk."""
        return not self.size or self.size + size <= PACK_SIZE_BYTES

    def take_bytes(self) -> bytes:
        """The object's bytes, once: the pack lets go of them, so that they are in memory one time only."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Packs:
    """Store, find and read packs. Everything may run at once.

    Args:
        pool: An `asyncpg.Pool`.
        store: Where the objects lie.
        access: Says again, when the index refuses an author, why.
    """

    def __init__(self, pool: Any, store: Store, access: Access) -> None:
        self._pool = pool
        self._store = store
        self._access = access

    async def keep(self, author: Caller, pack: Pack) -> None:
        """Make a pack durable, then known, with proofs for its author. A crash in between leaves an unknown object.

        The pack is spent afterwards, whether or not this succeeds.

        Raises:
            Forbidden, NotFound: The author may not write here any more. Nothing is known of the pack.
            StoreFull, Unavailable: The store or the index fails. The same upload may be tried again.
        """
        await self._store.put(pack.pack_id, pack.take_bytes())
        is_known, answers_lost = await self._index(author, pack)
        if is_known:
            return
        if not answers_lost:  # else an earlier try may have made it known
            await self._discard(pack)
        caller = await self._access.authorize(author.credential, author.workspace_id)
        caller.require_writer()
        raise Unavailable("the author's rights changed meanwhile: try again")

    async def find_missing(self, caller: Caller, hashes: Sequence[bytes]) -> list[bytes]:
        """The hashes that the caller has to upload, in order of request. Renews the leases of the others."""
        rows = await self._fetch("find_usable", caller.user_id, caller.workspace_id, list(set(hashes)), LEASE)
        usable = {row["hash"] for row in rows}
        return [chunk_hash for chunk_hash in hashes if chunk_hash not in usable]

    async def locate(self, caller: Caller, hashes: Sequence[bytes]) -> dict[bytes, Place]:
        """Where those chunks lie that the caller may read through the workspace. The others are not in the result."""
        rows = await self._fetch("locate_chunks", caller.user_id, caller.workspace_id, list(set(hashes)))
        return {row["hash"]: _place(row) for row in rows}

    async def read(self, pack_id: UUID, offset: int, length: int) -> bytes:
        """Bytes of a pack. Raises as `Store.get_range` does."""
        return await self._store.get_range(pack_id, offset, length)

    async def ping(self) -> None:
        """Raise `Unavailable` unless PostgreSQL and the store answer."""
        await self._fetch("ping")
        await self._store.exists(uuid4())

    async def _index(self, author: Caller, pack: Pack) -> tuple[bool, int]:
        """Whether the author could make the pack known, and how many answers to that were lost before this one."""
        for lost, delay_s in enumerate(_INDEX_DELAYS_S):
            try:
                return await self._index_once(author, pack), lost
            except Unavailable:
                await asyncio.sleep(delay_s)
        return await self._index_once(author, pack), len(_INDEX_DELAYS_S)

    async def _index_once(self, author: Caller, pack: Pack) -> bool:
        places = [pack.places[chunk_hash] for chunk_hash in sorted(pack.places)]
        rows = await self._fetch(
            "index_pack",
            author.credential.device_id,
            author.credential.secret_hash,
            author.workspace_id,
            pack.pack_id,
            pack.size,
            LEASE,
            [place.header.hash for place in places],
            [place.offset for place in places],
            [place.header.stored_size for place in places],
            [place.header.raw_size for place in places],
            [int(place.header.codec) for place in places],
        )
        return bool(rows[0]["count"])

    async def _discard(self, pack: Pack) -> None:
        try:
            await self._store.delete(pack.pack_id)
        except HutchError as error:
            _log.warning("pack.left_unknown", pack_id=str(pack.pack_id), error=str(error))

    async def _fetch(self, query: str, *arguments: object) -> Any:
        with translate():
            async with asyncio.timeout(_QUERY_TIMEOUT_S):
                return await self._pool.fetch(QUERIES[query], *arguments)


def _place(row: Any) -> Place:
    header = Header(row["hash"], Codec(row["codec"]), row["raw_bytes"], row["stored_bytes"])
    return Place(header, row["pack_id"], row["pack_offset"])

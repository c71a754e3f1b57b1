"""What a store of packs promises, whatever is behind it. One suite (`tests/contract/test_block_store.py`) holds all to it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self
from uuid import UUID

from broker.errors import Unavailable


class StoreFull(Unavailable):
    """There is no room. Nothing was stored and nothing was lost: make room, and the same upload goes through."""

    code = "store_full"


class Store(ABC):
    """Objects by pack id. An id is written once, and never used again; all methods may run at once.

    Every method may raise `Unavailable` when the store does not answer. Use as `async with`.
    """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """Get ready: connect, make what must be there, clear away what an earlier life left half-written.

        Raises:
            Misconfigured: This store cannot be used as it is set up.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections and locks."""

    @abstractmethod
    async def put(self, pack_id: UUID, data: bytes) -> None:
        """Store a pack; once this returns it is durable, and before that it is not there at all.

        Raises:
            StoreFull: No room. Nothing is left behind.
        """

    @abstractmethod
    async def get_range(self, pack_id: UUID, offset: int, length: int) -> bytes:
        """Exactly `length` (at least 1) bytes of a pack.

        Raises:
            NotFound: There is no such pack (any more).
            Corrupt: The pack ends before `offset + length`.
        """

    @abstractmethod
    async def delete(self, pack_id: UUID) -> None:
        """Remove a pack. One that is not there is removed already."""

    @abstractmethod
    async def exists(self, pack_id: UUID) -> bool:
        """Say whether the pack is there, whole."""

    @abstractmethod
    def list_packs(self) -> AsyncIterator[UUID]:
        """All packs that were there throughout, in no order; those that come or go meanwhile may be among them."""

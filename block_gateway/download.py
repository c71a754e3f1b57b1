"""One download: chunks in the order asked for, read in spans of packs, passed on as they are stored."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from block_gateway.access import Access, Caller
from block_gateway.budget import Budget
from block_gateway.packs import Packs, Place
from block_gateway.wire import Header, absent
from broker.errors import Corrupt, NotFound

Write = Callable[[bytes | memoryview], Awaitable[None]]

_WINDOW: Final = 1_024
"""Chunks that are looked up in one query. The caller's rights are asked for again with each."""
_SPAN_SIZE_BYTES: Final = 1024 * 1024
_SLICE_SIZE_BYTES: Final = 256 * 1024
_LOOK_UPS: Final = 3

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Span:
    """Chunks that lie end to end in one pack, in the order asked for."""

    places: tuple[Place, ...]

    @property
    def pack_id(self) -> UUID:
        return self.places[0].pack_id

    @property
    def offset(self) -> int:
        return self.places[0].offset

    @property
    def length(self) -> int:
        return self.places[-1].end - self.offset


Piece = Span | Header
"""A span to read, or the header that says a chunk is absent."""


def spans(hashes: Sequence[bytes], places: dict[bytes, Place]) -> list[Piece]:
    """What to read for `hashes`, in that order: neighbours of one pack together, up to 1 MiB. Pure."""
    pieces: list[Piece] = []
    run: list[Place] = []
    for chunk_hash in hashes:
        place = places.get(chunk_hash)
        if run and (place is None or not _joins(run, place)):
            pieces.append(Span(tuple(run)))
            run = []
        if place is None:
            pieces.append(absent(chunk_hash))
        else:
            run.append(place)
    if run:
        pieces.append(Span(tuple(run)))
    return pieces


def _joins(run: list[Place], place: Place) -> bool:
    last = run[-1]
    return (
        place.pack_id == last.pack_id
        and place.offset == last.end
        and place.end - run[0].offset <= _SPAN_SIZE_BYTES
    )


class Download:
    """Answers one request. Run it once; the first window is looked up by `start`, while errors can still be told.

    Args:
        packs: Where the chunks lie.
        access: Asked again as the download goes on: a revoked device's stream ends.
        budget: Bytes in memory that all downloads share.
        caller: Who reads, and through which workspace.
        hashes: In the order of the answer.

    Attributes:
        sent: Chunks sent so far.
        missed: Chunks told to be absent so far.
        sent_bytes: Bytes of chunks sent so far.
    """

    def __init__(
        self, packs: Packs, access: Access, budget: Budget, caller: Caller, hashes: Sequence[bytes]
    ) -> None:
        self._packs = packs
        self._access = access
        self._budget = budget
        self._caller = caller
        self._hashes = hashes
        self._first: list[Piece] = []
        self.sent = 0
        self.missed = 0
        self.sent_bytes = 0

    async def start(self) -> None:
        """Look up the first chunks. Raises `Unavailable` when PostgreSQL does not answer."""
        self._first = await self._look_up(self._hashes[:_WINDOW])

    async def run(self, write: Write) -> None:
        """Send all frames. `write` waits for the reader, however slow; it raises when the reader is gone.

        Raises:
            Unavailable: The store or PostgreSQL fails.
            Forbidden, NotFound: The caller may not read here any more.
        """
        async for pieces in self._windows():
            for piece in pieces:
                await self._send(piece, write)

    async def _windows(self) -> AsyncIterator[list[Piece]]:
        yield self._first
        for at in range(_WINDOW, len(self._hashes), _WINDOW):
            await self._check()
            yield await self._look_up(self._hashes[at : at + _WINDOW])

    async def _check(self) -> None:
        self._caller = await self._access.authorize(self._caller.credential, self._caller.workspace_id)

    async def _look_up(self, hashes: Sequence[bytes]) -> list[Piece]:
        return spans(hashes, await self._packs.locate(self._caller, hashes))

    async def _send(self, piece: Piece, write: Write, look_ups: int = _LOOK_UPS) -> None:
        if isinstance(piece, Header):
            self.missed += 1
            await write(piece.encode())
            return
        await self._budget.claim(piece.length)
        try:
            found = await self._send_span(piece, write)
        finally:
            self._budget.release(piece.length)
        if not found:
            await self._send_again(piece, write, look_ups - 1)

    async def _send_span(self, span: Span, write: Write) -> bool:
        """Read, then send. False, with nothing sent, when the pack is gone or broken."""
        try:
            data = memoryview(await self._packs.read(span.pack_id, span.offset, span.length))
        except (NotFound, Corrupt) as error:
            _log.warning("pack.missed", pack_id=str(span.pack_id), error=str(error))
            return False
        for place in span.places:
            start = place.offset - span.offset
            await self._send_chunk(place.header, data[start : start + place.header.stored_size], write)
        return True

    async def _send_chunk(self, header: Header, stored: memoryview, write: Write) -> None:
        if len(stored) <= _SLICE_SIZE_BYTES:
            await write(header.encode() + stored)
        else:
            await write(header.encode())
            # In slices: the transport copies what the reader does not take at once.
            for at in range(0, len(stored), _SLICE_SIZE_BYTES):
                await write(stored[at : at + _SLICE_SIZE_BYTES])
        self.sent += 1
        self.sent_bytes += len(stored)

    async def _send_again(self, span: Span, write: Write, look_ups: int) -> None:
        """The pack was rewritten between look-up and read: its chunks lie elsewhere now. Or some of it is lost."""
        hashes = [place.header.hash for place in span.places]
        if look_ups:
            pieces = singly(await self._look_up(hashes))
        else:
            _log.error("pack.lost", pack_id=str(span.pack_id), chunks=len(hashes))
            pieces = [absent(chunk_hash) for chunk_hash in hashes]
        for piece in pieces:
            await self._send(piece, write, look_ups)


def singly(pieces: Sequence[Piece]) -> list[Piece]:
    """The same with a span for each chunk, so that a broken one does not take its neighbours with it. Pure."""
    result: list[Piece] = []
    for piece in pieces:
        result.extend([piece] if isinstance(piece, Header) else [Span((place,)) for place in piece.places])
    return result

"""One upload: frames off the line, proven, gathered into packs, made durable. Bounded memory, whoever is slow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol

from block_gateway.access import Caller
from block_gateway.budget import Budget
from block_gateway.packs import LARGE_CHUNK_SIZE_BYTES, Pack, Packs
from block_gateway.wire import Codec, Frame, FrameParser, unpack_frame
from broker.errors import Corrupt, Unavailable

_PATIENCE_S: Final = 2.0
_IDLE_TIMEOUT_S: Final = 60.0


class ByteStream(Protocol):
    """A request's body, as aiohttp gives it."""

    async def readany(self) -> bytes:
        """The next bytes; empty at the end."""


class Upload:
    """Takes one request's frames. Run it once.

    Args:
        packs: Where the chunks go.
        budget: Bytes in memory that all uploads share.
        author: Whose chunks they are.
        body: The stream of frames.

    Attributes:
        stored: Chunks that are durable and known so far.
        stored_bytes: Their bytes as stored.
    """

    def __init__(self, packs: Packs, budget: Budget, author: Caller, body: ByteStream) -> None:
        self._packs = packs
        self._budget = budget
        self._author = author
        self._body = body
        self._parser = FrameParser()
        self._pack = Pack()
        self._claimed = 0
        self._gathered = 0
        self.stored = 0
        self.stored_bytes = 0

    async def run(self) -> None:
        """Take all frames. Whatever ends it, the whole frames that came before are kept.

        Raises:
            Corrupt: A frame lies, or the stream ends in the middle of one.
            Unavailable: The sender fell silent or went away; or store or index fail (`StoreFull`, too).
            Forbidden, NotFound: The author may not write here any more.
        """
        try:
            try:
                await self._take_all()
            except (Corrupt, Unavailable, ConnectionError):
                await self._flush()
                raise
            await self._flush()
        finally:
            self._budget.release(self._claimed)
            self._claimed = 0

    async def _take_all(self) -> None:
        async for data in self._pieces():
            self._parser.feed(data)
            await self._take_frames()
            await self._claim()
        self._parser.finish()

    async def _pieces(self) -> AsyncIterator[bytes]:
        idle_s = 0.0
        while True:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    data = await self._body.readany()
            except TimeoutError:
                idle_s += _PATIENCE_S
                await self._make_room(idle_s)
                continue
            if not data:
                return
            idle_s = 0.0
            yield data

    async def _make_room(self, idle_s: float) -> None:
        if idle_s >= _IDLE_TIMEOUT_S:
            raise Unavailable("the sender fell silent")
        # A slow sender must not sit on memory that others wait for.
        if self._budget.is_contended:
            await self._flush()
            await self._claim()

    async def _take_frames(self) -> None:
        frames, broken = _whole_frames(self._parser)
        if frames:
            proven, lie = await asyncio.to_thread(_prove, frames)
            for frame in proven:
                await self._gather(frame)
            broken = lie or broken
        if broken is not None:
            raise broken

    async def _gather(self, frame: Frame) -> None:
        size = frame.header.stored_size
        if size >= LARGE_CHUNK_SIZE_BYTES:
            alone = Pack()
            alone.add(frame)
            await self._keep(alone, 1)
            return
        if not self._pack.has_room(size):
            await self._flush()
        self._pack.add(frame)
        self._gathered += 1

    async def _flush(self) -> None:
        pack, gathered = self._pack, self._gathered
        self._pack, self._gathered = Pack(), 0
        if pack.size:
            await self._keep(pack, gathered)

    async def _keep(self, pack: Pack, chunks: int) -> None:
        await self._packs.keep(self._author, pack)
        self.stored += chunks
        self.stored_bytes += pack.size

    async def _claim(self) -> None:
        """Make the claim equal what is held and what the next frame will bring, before more of it is read."""
        coming = self._parser.header.stored_size if self._parser.header else 0
        more = self._pack.size + coming - self._claimed
        if more > 0 and not self._budget.try_claim(more):
            # Never wait for memory while holding some: two such would wait for each other.
            await self._flush()
            self._budget.release(self._claimed)
            self._claimed = 0
            await self._budget.claim(coming)
            self._claimed = coming
            return
        if more < 0:
            self._budget.release(-more)
        self._claimed += more


def _whole_frames(parser: FrameParser) -> tuple[list[Frame], Corrupt | None]:
    frames: list[Frame] = []
    try:
        while (frame := parser.take()) is not None:
            if frame.header.codec is Codec.ABSENT:
                raise Corrupt("an absent chunk cannot be uploaded")
            frames.append(frame)
    except Corrupt as error:
        return frames, error
    return frames, None


def _prove(frames: list[Frame]) -> tuple[list[Frame], Corrupt | None]:
    """The frames before the first that lies, and its lie."""
    for index, frame in enumerate(frames):
        try:
            unpack_frame(frame)
        except Corrupt as error:
            return frames[:index], error
    return frames, None

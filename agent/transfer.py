"""Move chunks between this device and the block gateway: many in a request, few requests at once, bounded memory."""

import asyncio
import io
import random
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar
from uuid import UUID

from agent.finish import in_thread
from agent.http import Http
from block_gateway.wire import (
    CONTENT_TYPE,
    HEADER_SIZE_BYTES,
    MAX_HASHES,
    Codec,
    Frame,
    FrameParser,
    decode_hashes,
    encode_hashes,
    make_frame,
    unpack_frame,
)
from broker.errors import Corrupt, Forbidden, HutchError, Retryable, Unavailable
from broker.model import Chunk

Reader = Callable[[], bytes | None]
"""Gives a chunk's verified bytes, in a thread; None when the file does not hold them any more."""
Sink = Callable[[Chunk, bytes], None]
"""Takes a chunk's verified bytes, in a thread."""
Source = Iterable[tuple[Chunk, Reader]] | AsyncIterable[tuple[Chunk, Reader]]

_REQUEST_SIZE_BYTES: Final = 8 * 1024 * 1024
_GROUP_SIZE_BYTES: Final = 256 * 1024
"""Small chunks are read and packed together: a thread a kilobyte would take longer than the work."""
_IN_FLIGHT: Final = 3
_ATTEMPTS: Final = 5
_FIRST_DELAY_S: Final = 0.2
_MISSING_ANSWER_LIMIT_BYTES: Final = MAX_HASHES * 32

T = TypeVar("T")


class Transfer:
    """The gateway's calls. Use as `async with`, or `close()` it at the end; many calls may run at once.

    A request that fails is tried again in place a few times. After that every method may raise `Unavailable`;
    `Forbidden` (revoked, or a viewer's upload), `NotFound` (no member) and `Refused` come at once.

    Args:
        base_url: The gateway's, as the session gives it.
        credential: `<device id>.<secret>`.
        cafile: The certificate authority to trust, alone; None: the system's.
        on_unreachable: Called each time that no gateway answered as one does: perhaps it has moved (`move`).

    Attributes:
        bytes_up: Bytes of chunk frames sent since the start, repetitions included.
        bytes_down: Bytes of chunk frames received.
    """

    def __init__(
        self,
        base_url: str,
        credential: str,
        cafile: Path | None = None,
        *,
        on_unreachable: Callable[[], None] = lambda: None,
    ) -> None:
        self._http = Http(base_url, credential, cafile)
        self._on_unreachable = on_unreachable
        self.bytes_up = 0
        self.bytes_down = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. What runs fails with `Unavailable`."""
        await self._http.close()

    async def move(self, base_url: str) -> None:
        """From now on the gateway is there. What is under way is tried again there, as after any broken line."""
        await self._http.move(base_url)

    async def missing(self, workspace_id: UUID, hashes: Sequence[bytes]) -> set[bytes]:
        """Which chunks this user has to upload before using them in the workspace. Renews the leases of the others."""
        result: set[bytes] = set()
        for at in range(0, len(hashes), MAX_HASHES):
            part = hashes[at : at + MAX_HASHES]
            result.update(await self._persist(lambda part=part: self._missing(workspace_id, part)))  # type: ignore[misc]
        return result

    async def upload(self, workspace_id: UUID, chunks: Source, on_bytes: Callable[[int], None]) -> set[bytes]:
        """Send chunks; return the hashes that are durably stored.

        Args:
            workspace_id: Where they are to be used.
            chunks: Taken as they are needed, never all at once. A reader may be called again for a retry. One that
                gives None, or raises OSError, leaves its chunk out: it is not in the result.
            on_bytes: Told of the raw bytes of chunks once they are stored.
        """
        stored: set[bytes] = set()

        async def send(batch: Sequence[tuple[Chunk, Reader]]) -> None:
            sent = await self._persist(lambda: self._upload(workspace_id, batch))
            stored.update(chunk.hash for chunk in sent)
            on_bytes(sum(chunk.size for chunk in sent))

        await _in_flight(_batches(_as_async(chunks), lambda item: item[0].size), send)
        return stored

    async def download(
        self, workspace_id: UUID, chunks: Sequence[Chunk], sink: Sink, on_bytes: Callable[[int], None]
    ) -> set[bytes]:
        """Fetch chunks; return the hashes that this user may not have in the workspace, or that are not there.

        Args:
            workspace_id: Through which they are read.
            chunks: Each distinct one is fetched once.
            sink: Called in threads, up to three at once, in any order; for a chunk perhaps again, after a broken
                request. What it raises ends the download and comes out. Never called after this method has ended.
            on_bytes: Told of the raw bytes that the sink has taken.

        Raises:
            Corrupt: The gateway sent other bytes than the hashes name, again and again.
        """
        gone: set[bytes] = set()

        async def fetch(batch: Sequence[Chunk]) -> None:
            reading = _Reading(list(batch), sink, on_bytes)
            await self._persist(lambda: self._download(workspace_id, reading))
            gone.update(reading.absent)

        await _in_flight(_batches(_as_async(dict.fromkeys(chunks)), lambda chunk: chunk.size), fetch)
        return gone

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try a few times, with growing jittered delays. Corrupt bytes are tried again too: lines flip bits."""
        delay_s = _FIRST_DELAY_S
        for number in range(1, _ATTEMPTS + 1):
            try:
                return await attempt()
            except Forbidden:
                raise
            except HutchError as error:
                self._on_unreachable()
                if not isinstance(error, Retryable | Corrupt) or number == _ATTEMPTS:
                    raise
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, no secret
            delay_s *= 2
        raise AssertionError("unreachable")

    async def _missing(self, workspace_id: UUID, hashes: Sequence[bytes]) -> list[bytes]:
        path = f"/v1/workspaces/{workspace_id}/chunks/missing"
        async with self._http.call(
            "POST", path, data=io.BytesIO(encode_hashes(hashes)), headers=_BINARY
        ) as response:
            return decode_hashes(await self._http.read_all(response, _MISSING_ANSWER_LIMIT_BYTES))

    async def _upload(self, workspace_id: UUID, batch: Sequence[tuple[Chunk, Reader]]) -> list[Chunk]:
        sent: list[Chunk] = []
        body = self._body(batch, sent)
        path = f"/v1/workspaces/{workspace_id}/chunks"
        async with self._http.call("POST", path, data=body, headers=_BINARY) as response:
            await self._http.read_all(response, _REQUEST_SIZE_BYTES)
        return sent

    async def _body(
        self, batch: Sequence[tuple[Chunk, Reader]], sent: list[Chunk]
    ) -> AsyncGenerator[bytes, None]:
        async for group in _batches(_as_async(batch), lambda item: item[0].size, _GROUP_SIZE_BYTES):
            for chunk, frame in await asyncio.to_thread(_read_frames, group):
                self.bytes_up += HEADER_SIZE_BYTES + len(frame.stored)
                yield frame.header.encode()
                yield frame.stored
                sent.append(chunk)

    async def _download(self, workspace_id: UUID, reading: "_Reading") -> None:
        path = f"/v1/workspaces/{workspace_id}/chunks/read"
        hashes = io.BytesIO(encode_hashes(chunk.hash for chunk in reading.wanted))
        parser = FrameParser()
        async with self._http.call("POST", path, data=hashes, headers=_BINARY) as response:
            async for data in self._http.pieces(response):
                self.bytes_down += len(data)
                parser.feed(data)
                await reading.accept(parser)
        if reading.wanted:
            raise Unavailable("the gateway's answer broke off")


_BINARY: Final = {"Content-Type": CONTENT_TYPE}


@dataclass
class _Reading:
    """What is still to come of one request's chunks, in the order asked for; a retry goes on from there."""

    wanted: list[Chunk]
    sink: Sink
    on_bytes: Callable[[int], None]

    def __post_init__(self) -> None:
        self.absent: set[bytes] = set()

    async def accept(self, parser: FrameParser) -> None:
        frames: list[tuple[Chunk, Frame]] = []
        while (frame := parser.take()) is not None:
            frames.append((self._expected(frame, len(frames)), frame))
        if not frames:
            return
        present = [(chunk, frame) for chunk, frame in frames if frame.header.codec is not Codec.ABSENT]
        if present:
            await in_thread(_sink_frames, present, self.sink)
        self.absent.update(frame.header.hash for _, frame in frames if frame.header.codec is Codec.ABSENT)
        del self.wanted[: len(frames)]
        self.on_bytes(sum(chunk.size for chunk, _ in present))

    def _expected(self, frame: Frame, index: int) -> Chunk:
        if index >= len(self.wanted) or frame.header.hash != self.wanted[index].hash:
            raise Corrupt("the gateway sent a chunk that was not asked for")
        chunk = self.wanted[index]
        if frame.header.codec is not Codec.ABSENT and frame.header.raw_size != chunk.size:
            raise Corrupt("the gateway sent a chunk of another size than the manifest says")
        return chunk


def _read_frames(group: Sequence[tuple[Chunk, Reader]]) -> list[tuple[Chunk, Frame]]:
    frames = []
    for chunk, reader in group:
        try:
            raw = reader()
        except OSError:
            raw = None  # gone or unreadable: the scanner will say what it is
        if raw is not None:
            frames.append((chunk, make_frame(chunk.hash, raw)))
    return frames


def _sink_frames(frames: Sequence[tuple[Chunk, Frame]], sink: Sink) -> None:
    for chunk, frame in frames:
        sink(chunk, unpack_frame(frame))


async def _in_flight(batches: AsyncIterator[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do `work` on every batch, few at once; a batch is taken only when somebody is free for it."""
    turn = asyncio.Lock()

    async def take() -> T | None:
        async with turn:
            return await anext(batches, None)

    async def worker() -> None:
        while (batch := await take()) is not None:
            await work(batch)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(_IN_FLIGHT):
                group.create_task(worker(), name=f"transfer-{number}")
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _as_async(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _batches(
    items: AsyncIterator[T], size_of: Callable[[T], int], limit: int = _REQUEST_SIZE_BYTES
) -> AsyncIterator[list[T]]:
    """Items together up to `limit` bytes, or `MAX_HASHES` of them; one that is larger goes alone."""
    batch: list[T] = []
    total = 0
    async for item in items:
        size = size_of(item)
        if batch and (total + size > limit or len(batch) == MAX_HASHES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch

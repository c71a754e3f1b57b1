"""Merge a conflict copy with its original, where both are texts and changed different lines of what they came from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from agent.filesystem import Root
from agent.merge3 import merge
from agent.service import Service
from agent.transfer import Transfer
from broker.errors import NotFound, Refused
from broker.messages import decode_content
from broker.model import Chunk

MAX_TEXT_SIZE_BYTES: Final = 1024 * 1024
MAX_LINES: Final = 20_000
_DERIVED: Final = 5
"""The version of the ids of copies whose two sides came from one file; that of two new files of one name is another."""


def read_text(folder: Path, path: str) -> str | None:
    """A file's text; None when it is no text, or too large to be compared. Raises `OSError`. Blocks."""
    root = Root(folder)
    try:
        with root.open(path) as fd, open(fd, "rb", closefd=False) as file:
            data = file.read(MAX_TEXT_SIZE_BYTES + 1)
    finally:
        root.close()
    return as_text(data)


def as_text(data: bytes) -> str | None:
    """Bytes as text; None when they are none, or too many."""
    if len(data) > MAX_TEXT_SIZE_BYTES or b"\0" in data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.count("\n") <= MAX_LINES else None


def lines_of(text: str) -> list[str]:
    """The lines of a text, with their ends: joined they are the text."""
    return text.splitlines(keepends=True)


async def find_base(
    service: Service, workspace_id: UUID, copy_id: UUID, original_id: UUID
) -> tuple[Chunk, ...]:
    """What a copy and its original came from, by the service's history: where another device has made the copy.

    The exact version is known to that device alone. All versions of the original that are older than the copy, but the
    last of them, may be it; the oldest is an ancestor of both sides in any case. It may show an overlap where there is
    none, and hides none.

    Raises:
        NotFound: The two sides came from nothing, or it is not kept any more.
    """
    if copy_id.version != _DERIVED:
        raise NotFound("the two files came from nothing in common: they cannot be merged")
    versions: dict[UUID, dict[int, bytes]] = {copy_id: {}, original_id: {}}
    async with service.versions(workspace_id, [copy_id, original_id]) as stream:
        async for version in stream:
            versions.setdefault(version.node_id, {})[version.version] = version.content
    made = min(versions[copy_id], default=0)
    older = sorted(number for number in versions[original_id] if number < made)
    if len(older) < 2:
        raise NotFound("what the two files came from is not kept any more: they cannot be merged")
    return decode_content(versions[original_id][older[0]]).chunks


async def fetch(transfer: Transfer, workspace_id: UUID, chunks: Sequence[Chunk]) -> bytes:
    """A content from the gateway. Raises `NotFound` when it is not there, `Refused` when it is too large."""
    if sum(chunk.size for chunk in chunks) > MAX_TEXT_SIZE_BYTES:
        raise Refused("what the two files came from is too large to be merged", "no_text")
    arrived: dict[bytes, bytes] = {}

    def keep(chunk: Chunk, data: bytes) -> None:
        arrived[chunk.hash] = data

    await transfer.download(workspace_id, chunks, keep, lambda size: None)
    if any(chunk.hash not in arrived for chunk in chunks):
        raise NotFound("the service does not have what the two files came from: they cannot be merged")
    return b"".join(arrived[chunk.hash] for chunk in chunks)


def merge_texts(base: str, original: str, copy: str) -> str:
    """The two sides in one.

    Raises:
        Refused: Both have changed the same lines, each otherwise.
    """
    lines = lines_of(base)
    merged = merge(lines, lines_of(original), lines_of(copy))
    if merged.lines is None:
        where = ", ".join(
            f"{overlap.start + 1}"
            if overlap.end <= overlap.start + 1
            else f"{overlap.start + 1}-{overlap.end}"
            for overlap in merged.overlaps[:10]
        )
        raise Refused(
            f"both sides changed the same lines (of the version before: {where}): merge them by hand; nothing was changed",
            "overlap",
        )
    return "".join(merged.lines)

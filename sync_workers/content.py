"""A file's content as an operation gives it: made whole, and told apart into what others can follow and what not. Pure."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from msgspec import Struct

from broker.messages import decode_content, encode
from broker.model import (
    Chunk,
    ConflictCode,
    Content,
    CopiedContent,
    FullContent,
    SplicedContent,
    apply_splices,
    manifest_digest,
)
from metadata.state import Node

Manifests = Mapping[tuple[UUID, UUID, int], bytes]

MAX_MISSING_HASHES: Final = 2_000
"""In one refusal: what fits a message with room to spare."""


class Whole(Struct, frozen=True, kw_only=True):
    """A content written out: as it is stored, and what its author named itself (a base's chunks are not)."""

    manifest: bytes
    digest: bytes
    size_bytes: int
    named: tuple[Chunk, ...] = ()


def make_whole(
    content: Content, workspace_id: UUID, before: Node | None, manifests: Manifests
) -> Whole | ConflictCode:
    """Write a content out whole.

    Args:
        content: As the operation gives it.
        workspace_id: Where it stands.
        before: The node before this commit, whose content is a splice's base; None for a new one.
        manifests: The loaded content of this workspace's versions.

    Returns:
        The content, or `base_gone` when what it is written against is not there, or is not what the author thinks.
    """
    if isinstance(content, FullContent):
        return _measure(content, content.chunks)
    if isinstance(content, CopiedContent):
        source = load_manifest(manifests, workspace_id, content.node_id, content.version)
        return ConflictCode.BASE_GONE if source is None else _measure(source, ())
    version = before.content_version if before else None
    base = load_manifest(manifests, workspace_id, before.node_id, version) if before else None
    return ConflictCode.BASE_GONE if base is None else _splice(content, base)


def load_manifest(
    manifests: Manifests, workspace_id: UUID, node_id: UUID, version: int | None
) -> FullContent | None:
    """A version's content, when it was kept and can be read."""
    if version is None:
        return None
    stored = manifests.get((workspace_id, node_id, version))
    return None if stored is None else decode_content(stored)


def _splice(content: SplicedContent, base: FullContent) -> Whole | ConflictCode:
    try:
        chunks = apply_splices(base.chunks, content.splices)
    except ValueError:
        return ConflictCode.BASE_GONE
    named = tuple(chunk for splice in content.splices for chunk in splice.inserted)
    whole = _measure(FullContent(content.cut, chunks), named)
    return whole if whole.digest == content.digest else ConflictCode.BASE_GONE


def _measure(content: FullContent, named: tuple[Chunk, ...]) -> Whole:
    return Whole(
        manifest=encode(content),
        digest=manifest_digest(content.chunks),
        size_bytes=sum(chunk.size for chunk in content.chunks),
        named=named,
    )

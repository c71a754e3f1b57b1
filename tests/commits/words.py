"""How a case says what a commit asks for: operations by the names of their nodes, made real against a world."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from msgspec import UNSET, UnsetType

from broker.model import (
    Content,
    CopiedContent,
    Delete,
    FullContent,
    MakeDirectory,
    MakeSymlink,
    Mount,
    Move,
    Operation,
    Put,
    SetAttributes,
    Splice,
    SplicedContent,
    Xattrs,
    manifest_digest,
    subtree_digest,
)
from tests.commits.world import World, letter_chunk

Say = Callable[[World], Operation]
SayContent = Callable[[World, str], Content]

STANDING: Final = -1
"""As a base version: the one that stands, a tombstone's too; None where there is no such node yet."""


def base_of(world: World, node: str, base: int | None) -> int | None:
    """The base version to send."""
    if base != STANDING:
        return base
    standing = world.nodes.get(world.id(node))
    return standing.version if standing else None


def _seen(world: World, node: str, base: int | None) -> int:
    return base_of(world, node, base) or 0


def put(
    node: str,
    name: str | None = None,
    parent: str = "/",
    content: str | SayContent = "a",
    base: int | None = STANDING,
    xattrs: Xattrs | UnsetType = UNSET,
) -> Say:
    """A file; its content is one chunk per letter."""

    def say(world: World) -> Operation:
        return Put(
            node_id=world.id(node),
            base_version=base_of(world, node, base),
            parent_id=world.id(parent),
            name=node if name is None else name,
            mode=0o644,
            mtime_ns=1,
            content=full(content) if isinstance(content, str) else content(world, node),
            xattrs=xattrs,
        )

    return say


def full(letters: str) -> FullContent:
    """A whole manifest."""
    return FullContent(20, tuple(letter_chunk(letter) for letter in letters))


def splice(start: int, removed: int, inserted: str, result: str) -> SayContent:
    """A splice against the standing content, which its author thinks makes `result`."""
    chunks = tuple(letter_chunk(letter) for letter in inserted)
    digest = manifest_digest(full(result).chunks)
    return lambda world, node: SplicedContent(20, (Splice(start, removed, chunks),), digest)


def copy(source: str, version: int | None = None) -> SayContent:
    """The content of another node's standing version."""

    def say(world: World, node: str) -> Content:
        standing = world.nodes.get(world.id(source))
        kept = standing.content_version if standing else None
        return CopiedContent(world.id(source), version if version is not None else kept or 0)

    return say


def mkdir(
    node: str,
    name: str | None = None,
    parent: str = "/",
    base: int | None = STANDING,
    xattrs: Xattrs | UnsetType = UNSET,
) -> Say:
    """A directory."""
    return lambda world: MakeDirectory(
        node_id=world.id(node),
        base_version=base_of(world, node, base),
        parent_id=world.id(parent),
        name=node if name is None else name,
        mode=0o755,
        xattrs=xattrs,
    )


def link(node: str, target: str = "there", base: int | None = STANDING) -> Say:
    """A symbolic link in the root."""
    return lambda world: MakeSymlink(
        node_id=world.id(node),
        base_version=base_of(world, node, base),
        parent_id=world.id("/"),
        name=node,
        target=target,
        mtime_ns=1,
    )


def mount(node: str, workspace: str = "other", base: int | None = STANDING) -> Say:
    """Another workspace, in the root."""
    return lambda world: Mount(
        node_id=world.id(node),
        base_version=base_of(world, node, base),
        parent_id=world.id("/"),
        name=node,
        mounted_workspace_id=world.id(workspace),
    )


def move(node: str, name: str | None = None, parent: str = "/", base: int | None = STANDING) -> Say:
    """Elsewhere."""
    return lambda world: Move(
        node_id=world.id(node),
        base_version=_seen(world, node, base),
        parent_id=world.id(parent),
        name=node if name is None else name,
    )


def chmod(
    node: str, mode: int = 0o700, base: int | None = STANDING, xattrs: Xattrs | UnsetType = UNSET
) -> Say:
    """Other attributes."""
    return lambda world: SetAttributes(
        node_id=world.id(node), base_version=_seen(world, node, base), mode=mode, mtime_ns=5, xattrs=xattrs
    )


def delete(node: str, *below: str, base: int | None = STANDING, digest: bool | None = None) -> Say:
    """Gone, with what its author knows below; `digest` True sends one for an empty directory too."""

    def say(world: World) -> Operation:
        known: list[tuple[UUID, int]] = [(world.id(n), world.nodes[world.id(n)].version) for n in below]
        subtree = subtree_digest(known) if below or digest else None
        return Delete(node_id=world.id(node), base_version=_seen(world, node, base), subtree=subtree)

    return say

"""The values that every part of Hutch speaks of: names, kinds, content, cursors and operations.

All of them are frozen, and pure: nothing here waits, reads a clock or opens anything.
"""

import hashlib
import itertools
import unicodedata
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_CHUNK_SIZE_BYTES: Final = 4 * 1024 * 1024
MAX_NAME_SIZE_BYTES: Final = 255
MAX_TARGET_SIZE_BYTES: Final = 4095
MAX_OPERATIONS_PER_COMMIT: Final = 20_000
MODE_MASK: Final = 0o777
MAX_XATTRS: Final = 64
MAX_XATTRS_SIZE_BYTES: Final = 64 * 1024
"""Of a node's extended attributes together, names and values. Some file systems take no more of one."""
XATTR_PREFIX: Final = "user."
RESERVED_NAME: Final = ".hutch"

ROOT: Final = UUID(int=0)
"""The node id of every workspace's root directory. It has no row, no name, and cannot be changed."""

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Sequence = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Mode = Annotated[int, Meta(ge=0, le=MODE_MASK)]
Nanoseconds = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
FileSize = Annotated[int, Meta(ge=0, le=2**62)]
ChunkSize = Annotated[int, Meta(ge=1, le=MAX_CHUNK_SIZE_BYTES)]


Xattrs = tuple[tuple[str, bytes], ...]
"""Extended attributes: names and values, ascending by name. All names begin with `user.`; see `xattrs_problem`."""


class Kind(StrEnum):
    """What a node is. It never changes: a file that becomes a directory is another node."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    MOUNT = "mount"


class Role(StrEnum):
    """What a member may do in a workspace. Viewers read, editors commit, the owner pays."""

    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"


class ConflictCode(StrEnum):
    """Why an operation, or a whole commit, was refused. Stable on the wire.

    `PERMANENT_CODES` are those that planning again cannot mend.
    """

    STALE_VERSION = "stale_version"  # the node has another version than the one it was based on
    NAME_TAKEN = "name_taken"  # in the final state two live nodes would have one name
    PARENT_GONE = "parent_gone"  # the parent is not a live directory
    SUBTREE_CHANGED = "subtree_changed"  # below the deleted directory is what its author had not seen
    NOT_EMPTY = "not_empty"  # a directory delete without a digest, and there is something below
    CYCLE = "cycle"  # a directory would stand below itself
    MISSING_CHUNKS = "missing_chunks"  # content that the author may not use, or that nobody uploaded
    BASE_GONE = "base_gone"  # the base of a splice or copy is not there: send the content whole
    FORBIDDEN = "forbidden"  # not a member, or a viewer
    BAD_NAME = "bad_name"  # a name, target or kind that no device may have
    OVER_QUOTA = "over_quota"  # the owner's quota would be exceeded
    HELD = "held"  # the guard holds the device's commits
    SUPERSEDED = "superseded"  # a later request of this incarnation was answered already
    POISONED = "poisoned"  # the request broke the workers that took it, again and again
    MOVED_TO = "moved_to"  # the subtree is a share of its own now
    NESTED_SHARE = "nested_share"  # a mount would stand in a workspace that is shared
    CURSOR_UNKNOWN = "cursor_unknown"  # the service's journal is not the one that the author followed


PERMANENT_CODES: Final = frozenset(
    {
        ConflictCode.FORBIDDEN,
        ConflictCode.BAD_NAME,
        ConflictCode.OVER_QUOTA,
        ConflictCode.NESTED_SHARE,
        ConflictCode.POISONED,
    }
)


class Cursor(Struct, frozen=True, array_like=True):
    """A place in a workspace's journal, and proof of having followed it there.

    Attributes:
        epoch: Grows when the service is restored from a backup.
        seq: The last entry received; 0 before the first.
        chain: `extend_chain` over all entries up to `seq`; `first_chain` at 0.
    """

    epoch: Sequence
    seq: Sequence
    chain: Hash


def first_chain(workspace_id: UUID) -> bytes:
    """The chain before a workspace's first journal entry."""
    return hashlib.sha256(b"hutch journal" + workspace_id.bytes).digest()


def extend_chain(chain: bytes, entry: bytes) -> bytes:
    """The chain after one more journal entry, given that entry's exact encoded bytes."""
    return hashlib.sha256(chain + entry).digest()


class Chunk(Struct, frozen=True, array_like=True, gc=False):
    """A piece of content: SHA-256 of its raw bytes, and their number."""

    hash: Hash
    size: ChunkSize


Manifest = tuple[Chunk, ...]
"""One file version's chunks, in order. An empty file has none."""


def manifest_digest(chunks: Iterable[Chunk]) -> bytes:
    """Name a manifest: SHA-256 over each chunk's hash and size (4 bytes, big-endian).

    Equal digests mean equal content. Unequal ones may still be the same bytes cut otherwise: who needs to
    know hashes the bytes along the other manifest.
    """
    total = hashlib.sha256()
    for chunk in chunks:
        total.update(chunk.hash)
        total.update(chunk.size.to_bytes(4, "big"))
    return total.digest()


class FullContent(Struct, frozen=True, tag="full", array_like=True):
    """A manifest sent whole. `cut` is the log2 of the cutter's average chunk size in bytes, kept with the file."""

    cut: Annotated[int, Meta(ge=0, le=30)]
    chunks: Manifest


class Splice(Struct, frozen=True, array_like=True):
    """In the base manifest, from index `start`, `removed` chunks give way to `inserted`."""

    start: Annotated[int, Meta(ge=0, le=2**31)]
    removed: Annotated[int, Meta(ge=0, le=2**31)]
    inserted: Manifest


class SplicedContent(Struct, frozen=True, tag="splice", array_like=True):
    """A manifest as splices, ascending and disjoint, against that of the operation's base version."""

    cut: Annotated[int, Meta(ge=0, le=30)]
    splices: tuple[Splice, ...]
    digest: Hash


class CopiedContent(Struct, frozen=True, tag="copy", array_like=True):
    """The content that a node was given by the commit `version`, which the workspace has already."""

    node_id: UUID
    version: Sequence


Content = FullContent | SplicedContent | CopiedContent


def apply_splices(base: Manifest, splices: Iterable[Splice]) -> Manifest:
    """The manifest that `splices` make of `base`.

    Raises:
        ValueError: When they overlap, descend or reach past the base's end.
    """
    result: list[Chunk] = []
    at = 0
    for splice in splices:
        if splice.start < at or splice.start + splice.removed > len(base):
            raise ValueError("splices overlap, or reach past the base's end")
        result.extend(base[at : splice.start])
        result.extend(splice.inserted)
        at = splice.start + splice.removed
    result.extend(base[at:])
    return tuple(result)


def make_splices(base: Manifest, new: Manifest) -> tuple[Splice, ...]:
    """One splice between the common head and the common tail of two manifests; none when they are equal."""
    head = 0
    shortest = min(len(base), len(new))
    while head < shortest and base[head] == new[head]:
        head += 1
    tail = 0
    while tail < shortest - head and base[-1 - tail] == new[-1 - tail]:
        tail += 1
    removed = len(base) - head - tail
    inserted = new[head : len(new) - tail]
    if not removed and not inserted:
        return ()
    return (Splice(head, removed, inserted),)


# --- operations: what a commit asks for. `base_version` is the node's version that the author saw; None: a new node.
# --- A version is the sequence of the commit that last changed the node (its deletion included).
# --- Where `xattrs` is left out, a live node keeps what it has, and a new or revived one has none: so older agents write.


class Put(Struct, frozen=True, kw_only=True, tag="put"):
    """A file with its content, new or replaced, at a place. Revives a tombstone when based on its version."""

    node_id: UUID
    base_version: Sequence | None = None
    parent_id: UUID
    name: str
    mode: Mode
    mtime_ns: Nanoseconds
    content: Content
    xattrs: Xattrs | UnsetType = UNSET


class MakeDirectory(Struct, frozen=True, kw_only=True, tag="mkdir"):
    """A directory at a place: new, or revived with `base_version` = its tombstone's version."""

    node_id: UUID
    base_version: Sequence | None = None
    parent_id: UUID
    name: str
    mode: Mode
    xattrs: Xattrs | UnsetType = UNSET


class MakeSymlink(Struct, frozen=True, kw_only=True, tag="symlink"):
    """A symbolic link, new or with another target. The target is data: nothing ever follows it."""

    node_id: UUID
    base_version: Sequence | None = None
    parent_id: UUID
    name: str
    target: str
    mtime_ns: Nanoseconds


class Mount(Struct, frozen=True, kw_only=True, tag="mount"):
    """Another workspace of the author's, shown at a place. Only in an unshared workspace (`nested_share`)."""

    node_id: UUID
    base_version: Sequence | None = None
    parent_id: UUID
    name: str
    mounted_workspace_id: UUID


class Move(Struct, frozen=True, kw_only=True, tag="move"):
    """A node and all below it at another place. Revives a tombstone when based on its version."""

    node_id: UUID
    base_version: Sequence
    parent_id: UUID
    name: str


class SetAttributes(Struct, frozen=True, kw_only=True, tag="attributes"):
    """Other permission bits, another modification time, other extended attributes (all that the node has then).

    Directories and mounts have no `mtime_ns`; only files and directories have `xattrs`.
    """

    node_id: UUID
    base_version: Sequence
    mode: Mode
    mtime_ns: Nanoseconds | None = None
    xattrs: Xattrs | UnsetType = UNSET


class Delete(Struct, frozen=True, kw_only=True, tag="delete"):
    """A node, and all below it that its author had seen.

    `subtree` is `subtree_digest` of what the author knows below a directory after this commit's own moves; None
    for anything but a directory, or for a directory that must be empty by then.
    """

    node_id: UUID
    base_version: Sequence
    subtree: Hash | None = None


Operation = Put | MakeDirectory | MakeSymlink | Mount | Move | SetAttributes | Delete
Operations = tuple[Operation, ...]


def subtree_digest(nodes: Iterable[tuple[UUID, int]]) -> bytes:
    """SHA-256 over the (node id, version) pairs strictly below a directory, ordered by node id.

    Versions are those before the commit that carries the digest; 8 bytes each, big-endian.
    """
    total = hashlib.sha256()
    for node_id, version in sorted(nodes, key=lambda pair: pair[0].int):
        total.update(node_id.bytes)
        total.update(version.to_bytes(8, "big"))
    return total.digest()


# --- names


def name_problem(name: str) -> str | None:
    """Say why no device may have a file of this name; None when the name is good."""
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "the name is not valid UTF-8"
    if name in ("", ".", ".."):
        return "the name is empty, `.` or `..`"
    if "/" in name or "\0" in name:
        return "the name has a slash or a NUL byte"
    if size > MAX_NAME_SIZE_BYTES:
        return f"the name is longer than {MAX_NAME_SIZE_BYTES} bytes"
    if fold_name(name) == RESERVED_NAME:
        return f"the name is reserved: Hutch keeps its own files in {RESERVED_NAME}"
    return None


def fold_name(name: str) -> str:
    """What a name is on the least exact file system: normalised (NFKC), without case, ignorables and trailing dots.

    Two names with one folded form may clash on some device. Source: the protections of git's `core.protectHFS`
    and `core.protectNTFS`, as an idea.
    """
    visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", visible.casefold()).rstrip(". ")


def target_problem(target: str) -> str | None:
    """Say why a symbolic link may not have this target; None when it may."""
    try:
        size = len(target.encode("utf-8"))
    except UnicodeEncodeError:
        return "the link's target is not valid UTF-8"
    if not target or "\0" in target:
        return "the link's target is empty or has a NUL byte"
    if size > MAX_TARGET_SIZE_BYTES:
        return f"the link's target is longer than {MAX_TARGET_SIZE_BYTES} bytes"
    return None


def xattrs_problem(xattrs: Xattrs) -> str | None:
    """Say why no node may have these extended attributes; None when one may."""
    names = [name for name, _ in xattrs]
    try:
        sizes = [len(name.encode("utf-8")) + len(value) for name, value in xattrs]
    except UnicodeEncodeError:
        return "an extended attribute's name is not valid UTF-8"
    if any(not name.startswith(XATTR_PREFIX) or name == XATTR_PREFIX or "\0" in name for name in names):
        return f"an extended attribute's name does not begin with `{XATTR_PREFIX}`, or has a NUL byte"
    if any(len(name.encode("utf-8")) > MAX_NAME_SIZE_BYTES for name in names):
        return f"an extended attribute's name is longer than {MAX_NAME_SIZE_BYTES} bytes"
    if any(one >= other for one, other in itertools.pairwise(names)):
        return "extended attributes are not in order, or one stands there twice"
    if len(xattrs) > MAX_XATTRS or sum(sizes) > MAX_XATTRS_SIZE_BYTES:
        return f"more than {MAX_XATTRS} extended attributes, or {MAX_XATTRS_SIZE_BYTES} bytes of them"
    return None

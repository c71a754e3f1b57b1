"""The guard: whether a commit deletes or rewrites so much that a person is to be asked first. Pure.

What is measured are old nodes, made before the guard's window began: how many of them a device deletes or gives other
content within the window, against how many stood when it began. So neither a new workspace nor what was made by mistake
a minute ago is held, and nobody can make room for a deletion by making junk first. Moves and attributes count for
nothing; a deleted directory counts for all that is in it.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from uuid import UUID, uuid5

from msgspec import Struct
from msgspec.structs import replace

from broker.messages import CommitRequest, encode
from broker.model import ROOT, Cursor
from metadata.state import Guard, Hold, NewHold, Node, Verdict

MAX_PATHS: Final = 20
"""Of each kind, kept to be shown."""

_HOLDS: Final = UUID("b1a5ad0a-5d53-5a51-9d0b-0c3d2f0f8d4e")


class Touched(Struct, frozen=True, kw_only=True):
    """The old nodes that a commit deletes, and those that it gives other content."""

    deleted: frozenset[UUID]
    rewritten: frozenset[UUID]

    @property
    def all(self) -> frozenset[UUID]:
        """Both."""
        return self.deleted | self.rewritten


class Watch(Struct, kw_only=True):
    """What one device has touched in one workspace, as the earlier commits of its batch leave it.

    Attributes:
        touched: How many old nodes, within the window.
        counted: Which of those that the batch may touch are among them.
        standing: How many old nodes stood when the window began; None where the batch cannot reach `Guard.min_nodes`.
        hold: What is held of it, or was accepted.
    """

    touched: int
    counted: set[UUID]
    standing: int | None
    hold: Hold | None

    @property
    def is_held(self) -> bool:
        """Whether nothing of this device is taken, because nobody has accepted it yet, or it is to take it back."""
        return self.hold is not None and self.hold.verdict is not Verdict.ACCEPTED

    @property
    def allowed(self) -> int:
        """How many nodes it may touch uncounted."""
        return self.hold.allowed if self.hold is not None else 0


def find_touched(
    before: Mapping[UUID, Node], after: Mapping[UUID, Node], stood: Collection[UUID], young: Collection[UUID]
) -> Touched:
    """What a commit does to old nodes.

    Args:
        before: The tree before it, tombstones among it.
        after: The nodes that it changes, as it leaves them.
        stood: Nodes that were in the database before the batch; all others are as young as can be.
        young: Those among them that were made within the window.
    """
    deleted, rewritten = set(), set()
    for node_id, node in after.items():
        old = before.get(node_id)
        if old is None or old.deleted or node_id not in stood or node_id in young:
            continue
        if node.deleted:
            deleted.add(node_id)
        elif (node.content_version, node.target) != (old.content_version, old.target):
            rewritten.add(node_id)
    return Touched(deleted=frozenset(deleted), rewritten=frozenset(rewritten))


def is_unusual(guard: Guard, watch: Watch, touched: Touched, to_follow: int) -> bool:
    """Whether a commit is to be held, because of all that its device has touched within the window and is about to.

    What was allowed is not counted, unless this is far more than that: somebody has said yes to another change then.
    """
    fresh = len(touched.all - watch.counted)
    beyond = fresh - watch.allowed
    if beyond <= 0 or watch.standing is None:
        return False
    total = watch.touched + to_follow + (beyond if beyond <= guard.min_nodes else fresh)
    return total > guard.min_nodes and total * 100 > guard.share_percent * watch.standing


def count(watch: Watch, touched: Touched, to_follow: int) -> list[UUID]:
    """Take over what an accepted commit has touched, and use up what the device was allowed.

    Returns:
        The nodes that count from now on.
    """
    fresh = sorted(touched.all - watch.counted, key=lambda node_id: node_id.int)
    spared = fresh[: watch.allowed]
    if watch.hold is not None and touched.all:
        # Once it has done what it was about to, nothing is left of the permission.
        left = watch.allowed - len(spared) if to_follow else 0
        watch.hold = replace(watch.hold, allowed=left) if left else None
    watch.touched += len(fresh) - len(spared)
    watch.counted.update(fresh[len(spared) :])
    return sorted(touched.all.difference(spared), key=lambda node_id: node_id.int)


def digest_of(request: CommitRequest) -> bytes:
    """What a request asks for, whatever its number and its author's cursor: asked again, it is the same."""
    bare = replace(request, incarnation=ROOT, number=1, cursor=Cursor(0, 0, bytes(32)), on_behalf_of=None)
    return hashlib.sha256(encode(bare)).digest()


def make_hold(
    request: CommitRequest,
    device_id: UUID,
    watch: Watch,
    touched: Touched,
    tree: Mapping[UUID, Node],
    chunks: Collection[bytes],
) -> NewHold:
    """What is kept of a held commit, and shown to a person."""
    name = f"{request.workspace_id}/{device_id}/{request.incarnation}/{request.number}"
    topmost = (node_id for node_id in touched.deleted if tree[node_id].parent_id not in touched.deleted)
    return NewHold(
        hold_id=uuid5(_HOLDS, name),
        digest=digest_of(request),
        request=encode(request),
        deleted=len(touched.deleted),
        rewritten=len(touched.rewritten),
        to_follow=request.to_follow,
        recent=watch.touched,
        deleted_paths=_some_paths(topmost, tree),
        rewritten_paths=_some_paths(touched.rewritten, tree),
        chunks=frozenset(chunks),
    )


def _some_paths(node_ids: Iterable[UUID], tree: Mapping[UUID, Node]) -> tuple[str, ...]:
    return tuple(sorted(_path(node_id, tree) for node_id in node_ids)[:MAX_PATHS])


def _path(node_id: UUID, tree: Mapping[UUID, Node]) -> str:
    names: list[str] = []
    while node_id != ROOT and (node := tree.get(node_id)) is not None and len(names) <= len(tree):
        names.append(node.name)
        node_id = node.parent_id
    return "/".join(reversed(names))

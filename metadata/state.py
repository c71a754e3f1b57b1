"""What a batch of commits is decided on, and what the decision is: values that the store loads and writes.

The store fills a `State`, hands it to the pure decision, and writes the `Decisions` that come back, all of it in one
transaction under the workspaces' locks. Nothing here waits or opens anything.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct, field

from broker.messages import CommitRefused, CommitRequest, Request
from broker.model import Cursor, Kind, Role

RequestKey = tuple[UUID, UUID, UUID]
"""Workspace, device, incarnation: whose numbers grow."""


Watched = tuple[UUID, UUID]
"""Workspace, device: what the guard measures, and holds."""

MAX_GUARD_WINDOW: Final = timedelta(hours=24)


class Submission(Struct, frozen=True, kw_only=True):
    """A request, and the device that is known to have sent it."""

    device_id: UUID
    request: Request

    @property
    def key(self) -> RequestKey:
        """Under which its number and outcome are kept."""
        return (self.request.workspace_id, self.device_id, self.request.incarnation)


class Guard(Struct, frozen=True, kw_only=True):
    """How much a device may delete, or give other content, before a person is asked.

    Its commit is held when, within the window and together with what is to come, it touches more than `min_nodes` nodes
    and more than `share_percent` of those that stood when the window began. 100: nothing is ever held.
    """

    min_nodes: int = 50
    share_percent: int = 50
    window: timedelta = timedelta(hours=1)


class Verdict(StrEnum):
    """What a person has said of a held commit."""

    HELD = "held"  # nothing yet
    ACCEPTED = "accepted"
    UNDONE = "undone"  # the device has yet to take it back


class Hold(Struct, frozen=True, kw_only=True):
    """What the guard holds of a device in a workspace, as a later commit is decided on it.

    Attributes:
        digest: Of the held request, whatever its number and cursor.
        allowed: When it was accepted: how many nodes the device may still touch uncounted.
    """

    hold_id: UUID
    verdict: Verdict
    digest: bytes
    allowed: int = 0


class NewHold(Struct, frozen=True, kw_only=True):
    """A row of `holds` to be, with the chunks that it pins. See schema.sql for each field."""

    hold_id: UUID
    digest: bytes
    request: bytes
    deleted: int
    rewritten: int
    to_follow: int
    recent: int
    deleted_paths: tuple[str, ...]
    rewritten_paths: tuple[str, ...]
    chunks: frozenset[bytes]


class Author(Struct, frozen=True, kw_only=True):
    """A device that has sent requests. `queue_name` is where its answers go."""

    device_id: UUID
    user_id: UUID
    queue_name: str
    revoked: bool


class Workspace(Struct, frozen=True, kw_only=True):
    """A workspace's journal head, and whose quota it counts for."""

    workspace_id: UUID
    owner_id: UUID
    epoch: int
    seq: int
    chain: bytes
    members: int = 1

    @property
    def head(self) -> Cursor:
        """The journal's last entry."""
        return Cursor(self.epoch, self.seq, self.chain)


class Owner(Struct, frozen=True, kw_only=True):
    """Who pays. `quota_bytes` None: no limit."""

    quota_bytes: int | None
    used_bytes: int


class Node(Struct, frozen=True, gc=False):
    """A row of `nodes`: live, or a tombstone. See schema.sql for each field."""

    node_id: UUID
    parent_id: UUID
    name: str
    kind: Kind
    version: int
    deleted: bool = False
    mode: int = 0
    mtime_ns: int = 0
    size_bytes: int = 0
    content_version: int | None = None
    target: str | None = None
    mounted_workspace_id: UUID | None = None
    xattrs: bytes | None = None


class NewVersion(Struct, frozen=True, kw_only=True, gc=False):
    """A row of `versions` to be. `manifest` is an encoded FullContent."""

    workspace_id: UUID
    node_id: UUID
    version: int
    manifest: bytes
    digest: bytes
    size_bytes: int
    mtime_ns: int
    mode: int
    user_id: UUID
    device_id: UUID


class Accepted(Struct, frozen=True, kw_only=True):
    """Done: `entry` (encoded) is in the journal, and `head` is the cursor at it."""

    head: Cursor
    entry: bytes


class Refused(Struct, frozen=True, kw_only=True):
    """None of it was done. `recorded`: it is the answer to this number from now on."""

    refusal: CommitRefused
    recorded: bool = True


class Replayed(Struct, frozen=True, kw_only=True):
    """Answered before, and answered the same now. `at` is the cursor at its `entry` when it was accepted.

    `refusal` is the encoded CommitRefused when it was not.
    """

    at: Cursor | None = None
    entry: bytes = b""
    refusal: bytes | None = None


class Dead(Struct, frozen=True, kw_only=True):
    """Not a request that anyone may make: dead-letter it. `reason` is a fixed word."""

    reason: str


Outcome = Accepted | Refused | Replayed | Dead


class LastRequest(Struct, frozen=True, kw_only=True):
    """The last answered number of a device incarnation in a workspace, and its outcome."""

    number: int
    outcome: Replayed


class State(Struct, frozen=True, kw_only=True):
    """All that a batch needs, loaded under the locks of its workspaces and their owners.

    Attributes:
        now: The database's clock.
        authors: Every known device among the senders.
        workspaces: Those that exist among the requests'.
        roles: (workspace, user), for the requests' workspaces and those that they mount.
        owners: Of the workspaces, by user.
        last: Under the request's key; absent before a first request.
        chains: (workspace, seq), where the requests' cursors stand, but for heads; absent when there is no such entry.
        nodes: By workspace, then node: whatever the operations touch, with all ancestors, live occupants of the
            names they claim, and all that is live below what they delete (and, then, below what they move).
        manifests: (workspace, node, version) of bases and copies: an encoded FullContent.
        usable: By user, then chunk hash: raw size in bytes, of those that the user may use now.
        guard: The guard's measure.
        holds: What is held of the authors; absent when nothing is, or what was accepted has expired.
        touched: How many old nodes each author has touched within the window.
        counted: Which of those that the batch may touch are among them.
        standing: How many old nodes stood when the window began, or at least enough to decide; absent where the batch
            cannot touch more than `Guard.min_nodes`.
        young: By workspace: nodes that were made within the window.
    """

    now: datetime
    guard: Guard = Guard()
    authors: dict[UUID, Author] = field(default_factory=dict)
    workspaces: dict[UUID, Workspace] = field(default_factory=dict)
    roles: dict[tuple[UUID, UUID], Role] = field(default_factory=dict)
    owners: dict[UUID, Owner] = field(default_factory=dict)
    last: dict[RequestKey, LastRequest] = field(default_factory=dict)
    chains: dict[tuple[UUID, int], bytes] = field(default_factory=dict)
    nodes: dict[UUID, dict[UUID, Node]] = field(default_factory=dict)
    manifests: dict[tuple[UUID, UUID, int], bytes] = field(default_factory=dict)
    usable: dict[UUID, dict[bytes, int]] = field(default_factory=dict)
    holds: dict[Watched, Hold] = field(default_factory=dict)
    touched: dict[Watched, int] = field(default_factory=dict)
    counted: dict[Watched, set[UUID]] = field(default_factory=dict)
    standing: dict[Watched, int] = field(default_factory=dict)
    young: dict[UUID, set[UUID]] = field(default_factory=dict)


class Resolved(Struct, frozen=True, kw_only=True):
    """A submission with its body at hand. `body` None: it was staged and is there no more; `dead`: it lies."""

    submission: Submission
    body: CommitRequest | None
    dead: str | None = None


class Decisions(Struct, kw_only=True):
    """What a batch comes to: an outcome for each request, and the rows to write for all of them together.

    Attributes:
        outcomes: In the order of the requests.
        heads: New heads, by workspace.
        nodes: New rows and changed ones, by workspace and node.
        versions: New content.
        journal: (workspace, seq, chain, entry), in order.
        chunks: (workspace, hash): what the workspaces may use from now on.
        used_bytes: By owner: what is added to (or taken from) what they use.
        last: The numbers that are answered now.
        touches: (workspace, device, node): old nodes that were deleted or given other content.
        holds: What is held from now on, in the place of what was.
        allowances: What is left of what was accepted; 0: the hold is done with.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    heads: dict[UUID, Cursor] = field(default_factory=dict)
    nodes: dict[tuple[UUID, UUID], Node] = field(default_factory=dict)
    versions: list[NewVersion] = field(default_factory=list)
    journal: list[tuple[UUID, int, bytes, bytes]] = field(default_factory=list)
    chunks: set[tuple[UUID, bytes]] = field(default_factory=set)
    used_bytes: dict[UUID, int] = field(default_factory=dict)
    last: dict[RequestKey, LastRequest] = field(default_factory=dict)
    touches: set[tuple[UUID, UUID, UUID]] = field(default_factory=set)
    holds: dict[Watched, NewHold] = field(default_factory=dict)
    allowances: dict[Watched, int] = field(default_factory=dict)


Decide = Callable[[State, Sequence[Resolved]], Decisions]
"""The pure decision. Runs in a thread, with nothing shared."""


class BatchResult(Struct, frozen=True, kw_only=True):
    """Outcomes in the order of the submissions, and where they are to be sent.

    Attributes:
        outcomes: One per submission.
        queues: Response queue by device, of the devices that are not revoked.
        heads: By workspace, as the batch left them.
    """

    outcomes: list[Outcome]
    queues: dict[UUID, str]
    heads: dict[UUID, Cursor]

"""The decision: three trees in, what to commit and what to put in place out. Pure, and the same for the same trees.

The two sides are merged into one target tree, node by node and aspect by aspect (being there, place, content,
attributes); what the journal lacks of the target is to be committed, what the disk lacks of it is to be placed.
Then names, parents and cycles are put right in the target as a whole.

Source: three-way merge against the last agreed state, as in Unison (Pierce and Vouillon), on identities as in
Dropbox's Nucleus.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final
from uuid import UUID, uuid5

from msgspec import Struct

from agent.names import conflict_name, is_conflict_name
from agent.trees import Node, Tree, Trees, merge_xattrs, replace, same
from broker.model import ROOT, Kind

_NESTED: Final = 2
"""The rank of a deletion that another one includes."""

_ASIDE: Final = UUID("6fbd1c58-2f0b-5b52-9d3a-6e0c8d0c6c11")


class Change(Struct, frozen=True):
    """One node before and after, on one side. None: not there."""

    before: Node | None
    after: Node | None

    @property
    def node_id(self) -> UUID:
        """Whose change this is."""
        node = self.after or self.before
        assert node is not None  # a change has at least one end
        return node.node_id

    @property
    def moves(self) -> bool:
        """Whether an existing node gets another place."""
        return self.before is not None and self.after is not None and self.before.place != self.after.place

    @property
    def fills(self) -> bool:
        """Whether content has to come from somewhere: a new node, or other bytes."""
        return self.after is not None and (self.before is None or self.before.content != self.after.content)


class Adoption(Struct, frozen=True):
    """Disk and journal have the same thing under two ids: the disk's takes the journal's."""

    local_id: UUID
    remote_id: UUID


class KeepAside(Struct, frozen=True):
    """Both sides changed a file's content: the disk's becomes a node of its own, under a conflict name beside it.

    Where this device keeps a copy of that node already, the disk's content becomes the next version of that copy,
    `onto`. `remote` is what it disagrees with: equal bytes that were merely cut otherwise are no conflict, and whoever can
    read the file should look before believing this.
    """

    local: Node
    remote: Node
    new_id: UUID
    name: str
    onto: Node | None = None


class Plan(Struct, frozen=True):
    """What to do. While there are `adoptions` or `asides`, do these alone, then plan again.

    Attributes:
        commit: Changes of the journal, in no order. Those in `waiting` cannot go yet.
        place: Changes of the disk, in no order.
        agreed: Nodes on which both sides agree already: the merge base only has to learn it.
    """

    adoptions: tuple[Adoption, ...] = ()
    asides: tuple[KeepAside, ...] = ()
    commit: tuple[Change, ...] = ()
    place: tuple[Change, ...] = ()
    agreed: tuple[UUID, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all to do."""
        return not (self.adoptions or self.asides or self.commit or self.place or self.agreed)


def plan(trees: Trees, *, device: str, date: str, held: Collection[UUID] = ()) -> Plan:
    """Merge what is on disk and what the journal says against what they last agreed on.

    Args:
        trees: The three trees. Only `dirty` nodes are looked at: the cost is that of what changed.
        device: This device's name, for conflict copies.
        date: Today, as conflict copies shall show it.
        held: Nodes that neither side shall change for now: refused for good, or unreadable.

    Returns:
        The plan. Applying it and planning again gives an empty one.
    """
    return _Merge(trees, device, date, frozenset(held)).run()


def merge_node(remote: Node | None, local: Node | None, synced: Node | None) -> Node | None:
    """What a node shall be on both sides, when nothing else is in its way. None: gone.

    An edit wins over a delete; a delete wins over a mere move. Of two places, modes, times or values of an extended
    attribute the journal's wins. Of two contents the journal's stays here: the caller keeps the other aside first (`is_conflict`).
    """
    if remote is None and local is None:
        return None
    if synced is None:
        return remote or local
    if remote is None:
        assert local is not None
        return local if local.content != synced.content else None
    if local is None:
        return remote if remote.content != synced.content else None
    return _merge_aspects(remote, local, synced)


def _merge_aspects(remote: Node, local: Node, synced: Node) -> Node:
    place = remote if remote.place != synced.place else local
    mode = remote.mode if remote.mode != synced.mode else local.mode
    if remote.content != synced.content:
        content = remote
    elif local.content != synced.content:
        content = local
    else:
        content = remote if remote.mtime_ns != synced.mtime_ns else local
    return replace(
        remote,
        parent_id=place.parent_id,
        name=place.name,
        mode=mode,
        mtime_ns=content.mtime_ns,
        size=content.size,
        digest=content.digest,
        target=content.target,
        xattrs=merge_xattrs(remote.xattrs, local.xattrs, synced.xattrs),
    )


def is_conflict(remote: Node | None, local: Node | None, synced: Node | None) -> bool:
    """Whether both sides hold content that the other has not seen."""
    if remote is None or local is None or remote.content == local.content:
        return False
    if synced is None:
        return True
    return remote.content != synced.content and local.content != synced.content


class _Merge:
    """One run of `plan`. `target` holds what each dirty node shall be; all other nodes are equal everywhere."""

    def __init__(self, trees: Trees, device: str, date: str, held: frozenset[UUID]) -> None:
        self.trees = trees
        self.device = device
        self.date = date
        self.target: dict[UUID, Node | None] = {}
        self.still: set[UUID] = set()  # nodes that nothing may be done to for now
        self.held = held
        self.adoptions: list[Adoption] = []
        self.asides: list[KeepAside] = []
        self.making_room: list[Change] = []
        self._revived: dict[
            UUID, bool
        ] = {}  # by the living below them; whether nothing was to be done to them before
        self._taken: dict[tuple[UUID, str], list[UUID]] = {}

    def run(self) -> Plan:
        dirty = sorted(self.trees.dirty, key=lambda node_id: node_id.int)
        for node_id in dirty:
            self._merge(node_id)
        self._revive_parents(dirty)
        self._undo_cycles(dirty)
        self._settle_names()
        if self.adoptions or self.asides:
            return Plan(adoptions=tuple(self.adoptions), asides=tuple(self.asides))
        return self._result(dirty)

    # --- each node for itself

    def _merge(self, node_id: UUID) -> None:
        trees = self.trees
        remote, local, synced = trees.remote.get(node_id), trees.local.get(node_id), trees.synced.get(node_id)
        if node_id in self.held or (local is not None and local.is_unhashed):
            self.still.add(node_id)
            self.target[node_id] = local or remote
            return
        if node_id in trees.unannounced and remote is None:
            self.still.add(node_id)
            self.target[node_id] = None
            return
        if is_conflict(remote, local, synced):
            assert remote is not None
            assert local is not None
            if self._must_wait_for_copy(local, remote):
                self.still.add(node_id)
                self.target[node_id] = local
                return
            self._keep_aside(local, remote)
        self.target[node_id] = merge_node(remote, local, synced)

    def _keep_aside(self, local: Node, remote: Node) -> None:
        if self._keep_onto(local, remote):
            return
        name = self._free_name(local.parent_id, local.name)
        # The version, since an equal copy may have been made before, and deleted: its tombstone has that id.
        new_id = uuid5(_ASIDE, f"{local.node_id}/{remote.version}/{local.digest.hex()}/{local.target}/{name}")
        self.asides.append(KeepAside(local=local, remote=remote, new_id=new_id, name=name))

    def _keep_onto(self, loser: Node, winner: Node) -> bool:
        """Make what has lost the next version of the copy that there is of that node, if there is one."""
        copy = self._copy_of(loser, winner)
        if copy is None or any(aside.onto is copy for aside in self.asides):
            return False
        self.asides.append(
            KeepAside(local=loser, remote=winner, new_id=copy.node_id, name=copy.name, onto=copy)
        )
        return True

    def _copy_of(self, loser: Node, winner: Node) -> Node | None:
        """This device's copy of a node, while it bears its conflict name: one that a person has renamed is theirs."""
        copy_id = self.trees.copies.get(winner.node_id)
        copy = None if copy_id is None else self.trees.local.get(copy_id)
        if copy is None or copy_id in self.held or copy.is_unhashed or copy.node_id == loser.node_id:
            return None
        is_copy = copy.kind is Kind.FILE and is_conflict_name(copy.name, self.device)
        return copy if is_copy and loser.kind is Kind.FILE else None

    def _must_wait_for_copy(self, loser: Node, winner: Node) -> bool:
        """Content that is in nobody's history yet is not replaced: the copy is told of first."""
        copy = self._copy_of(loser, winner)
        return copy is not None and copy.node_id in self.trees.dirty

    # --- a live node needs a live parent

    def _revive_parents(self, dirty: list[UUID]) -> None:
        waiting = [node for node_id in dirty if (node := self.target[node_id]) is not None]
        while waiting:
            node = waiting.pop()
            parent_id = node.parent_id
            if parent_id == ROOT or self._lookup(parent_id) is not None or node.node_id in self.still:
                continue
            parent = self._last_seen(node, parent_id)
            if parent is None:
                continue
            self._revived[parent_id] = parent_id in self.still
            self.target[parent_id] = parent
            self.still.discard(parent_id)
            waiting.append(parent)

    def _last_seen(self, child: Node, parent_id: UUID) -> Node | None:
        for tree in (self.trees.remote, self.trees.local):
            own = tree.get(child.node_id)
            if own is not None and own.parent_id == parent_id and parent_id in tree:
                return tree.get(parent_id)
        return self.trees.remote.get(parent_id) or self.trees.local.get(parent_id)

    def _lookup(self, node_id: UUID) -> Node | None:
        if node_id in self.target:
            return self.target[node_id]
        return self.trees.remote.get(node_id)

    # --- no directory below itself: of the moves that close a ring, this device's are undone

    def _undo_cycles(self, dirty: list[UUID]) -> None:
        # Undoing a move may bring a directory back to life, and that may close another ring; or leave one that lives for nothing.
        while self._undo_cycles_once():
            self._unrevive()
            self._revive_parents(dirty)

    def _unrevive(self) -> None:
        for node_id, was_still in self._revived.items():
            self.target[node_id] = None
            if was_still:
                self.still.add(node_id)
        self._revived.clear()

    def _undo_cycles_once(self) -> bool:
        undone = False
        for node_id, node in list(self.target.items()):
            remote = self.trees.remote.get(node_id)
            if (
                node is None
                or remote is None
                or node.kind is not Kind.DIRECTORY
                or node.place == remote.place
            ):
                continue
            if self._is_below_itself(node):
                self.target[node_id] = replace(node, parent_id=remote.parent_id, name=remote.name)
                undone = True
        return undone

    def _is_below_itself(self, node: Node) -> bool:
        seen = {node.node_id}
        parent = self._lookup(node.parent_id)
        while parent is not None:
            if parent.node_id in seen:
                return parent.node_id == node.node_id
            seen.add(parent.node_id)
            parent = self._lookup(parent.parent_id)
        return False

    # --- one name, one node

    def _settle_names(self) -> None:
        for node_id, node in self.target.items():
            if node is not None:
                self._taken.setdefault(node.place, []).append(node_id)
        for place, node_ids in list(self._taken.items()):
            bystander = self._bystander(place)
            if bystander is not None:
                node_ids = [bystander, *node_ids]
            if len(node_ids) > 1:
                self._settle_name(place, node_ids)
        self._merge_unannounced()

    def _merge_unannounced(self) -> None:
        """A directory that had to stay becomes the new one that the journal wants under its name, or makes room."""
        for node_id in sorted(self.trees.unannounced & self.still, key=lambda node_id: node_id.int):
            old = self.trees.local.get(node_id)
            if old is None or self.target[node_id] is not None:
                continue
            wanted = [self.target[other_id] for other_id in self._taken.get(old.place, ())]
            new = next((node for node in wanted if node is not None), None)
            if new is None:
                continue
            if new.kind is old.kind and new.node_id not in self.trees.local:
                self.adoptions.append(Adoption(local_id=node_id, remote_id=new.node_id))
            else:
                self.making_room.append(Change(old, replace(old, name=self._free_name(*old.place))))

    def _bystander(self, place: tuple[UUID, str]) -> UUID | None:
        """A node at that place that nobody has changed."""
        node = self.trees.remote.child(*place)
        return None if node is None or node.node_id in self.target else node.node_id

    def _settle_name(self, place: tuple[UUID, str], node_ids: list[UUID]) -> None:
        winner_id = min(
            node_ids, key=lambda node_id: (not self._stands_remotely(node_id, place), node_id.int)
        )
        winner = self._lookup(winner_id)
        assert winner is not None
        for node_id in node_ids:
            if node_id == winner_id:
                continue
            loser = self.target[node_id]
            assert loser is not None
            if self._is_same_thing(loser, winner):
                self.adoptions.append(Adoption(local_id=node_id, remote_id=winner_id))
            elif self._may_be_known_bytes(loser, winner):
                if self._must_wait_for_copy(loser, winner):
                    self.still.add(node_id)
                else:
                    self._keep_new_aside(loser, winner)
            elif node_id not in self.still:
                self.target[node_id] = replace(loser, name=self._free_name(*place))

    def _keep_new_aside(self, loser: Node, winner: Node) -> None:
        if self._keep_onto(loser, winner):
            return
        name = self._free_name(loser.parent_id, loser.name)
        self.asides.append(KeepAside(local=loser, remote=winner, new_id=loser.node_id, name=name))

    def _stands_remotely(self, node_id: UUID, place: tuple[UUID, str]) -> bool:
        remote = self.trees.remote.get(node_id)
        return remote is not None and remote.place == place

    def _is_new_here(self, node: Node) -> bool:
        return node.node_id not in self.trees.remote and node.node_id not in self.trees.synced

    def _is_same_thing(self, loser: Node, winner: Node) -> bool:
        if loser.kind is not winner.kind or winner.node_id in self.trees.local:
            return False
        if loser.kind is Kind.DIRECTORY:  # new here, or deleted elsewhere, and alive for what is in it
            return loser.node_id not in self.trees.remote
        return self._is_new_here(loser) and loser.content == winner.content and not loser.is_unhashed

    def _may_be_known_bytes(self, loser: Node, winner: Node) -> bool:
        return (
            loser.kind is Kind.FILE
            and winner.kind is Kind.FILE
            and self._is_new_here(loser)
            and winner.node_id not in self.trees.local
            and loser.node_id not in self.still
        )

    def _free_name(self, parent_id: UUID, name: str) -> str:
        def is_free(candidate: str) -> bool:
            place = (parent_id, candidate)
            trees = self.trees
            if any(tree.child(*place) for tree in (trees.remote, trees.local)) or place in self._taken:
                return False
            self._taken[place] = []
            return True

        return conflict_name(name, self.device, self.date, is_free)

    # --- the target against each side

    def _result(self, dirty: list[UUID]) -> Plan:
        commit, place, agreed = [], [*self.making_room], []
        for node_id in dirty:
            if node_id in self.still:
                continue
            target = self.target[node_id]
            remote, local = self.trees.remote.get(node_id), self.trees.local.get(node_id)
            if not same(local, target):
                place.append(Change(local, target))
            if not same(remote, target) and not self._is_placed_first(node_id, local, target):
                commit.append(Change(remote, target))
            if same(local, target) and same(remote, target):
                agreed.append(node_id)
        place = list(self._without_kept(place))
        return Plan(
            commit=tuple(_possible(_without_rings(commit, self.trees.remote), self.trees.remote)),
            place=tuple(_possible(_without_rings(place, self.trees.local), self.trees.local, self._stayed())),
            agreed=tuple(agreed),
        )

    def _is_placed_first(self, node_id: UUID, local: Node | None, target: Node | None) -> bool:
        """A node that nobody else knows is told of only as it stands on disk."""
        return node_id not in self.trees.synced and target is not None and not same(local, target)

    def _stayed(self) -> set[UUID]:
        """Directories that had to stay and still shall: what holds them is tried, and has to stay as well."""
        return {node_id for node_id in self.trees.unannounced & self.still if self.target[node_id] is None}

    def _without_kept(self, place: list[Change]) -> Iterator[Change]:
        """A directory goes only when all that it holds here goes, or moves out, with it."""
        kept: set[UUID] = set()
        for node_id in self.still - self._stayed():
            local = self.trees.local.get(node_id)
            while local is not None and local.parent_id not in kept and local.parent_id != ROOT:
                kept.add(local.parent_id)
                local = self.trees.local.get(local.parent_id)
        for change in place:
            if change.after is not None or change.node_id not in kept:
                yield change


def _possible(changes: list[Change], tree: Tree, stayed: Collection[UUID] = ()) -> list[Change]:
    """Without what cannot be yet: a name that nothing frees, a parent that nothing makes, a directory that holds more."""
    by_id = {change.node_id: change for change in changes}
    while True:
        blocked = [node_id for node_id, change in by_id.items() if _is_blocked(change, by_id, tree, stayed)]
        if not blocked:
            return list(by_id.values())
        for node_id in blocked:
            del by_id[node_id]


def _is_blocked(change: Change, by_id: Mapping[UUID, Change], tree: Tree, stayed: Collection[UUID]) -> bool:
    if change.after is None:
        below = (child.node_id for child in tree.children(change.node_id))
        return any(node_id not in by_id and node_id not in stayed for node_id in below)
    if change.before is not None and not change.moves:
        return False
    occupant = tree.child(*change.after.place)
    if occupant is not None and occupant.node_id != change.node_id:
        other = by_id.get(occupant.node_id)
        if other is None or (other.after is not None and not other.moves):
            return True
    parent_id = change.after.parent_id
    return parent_id != ROOT and parent_id not in tree and parent_id not in by_id


def _without_rings(changes: list[Change], tree: Tree) -> list[Change]:
    """A node that nothing may be done to can close a ring with moves that would be right without it: they wait."""
    held: set[UUID] = set()
    while closing := rings([change for change in changes if change.node_id not in held], tree):
        held |= closing
    return [change for change in changes if change.node_id not in held]


def rings(changes: Iterable[Change], tree: Tree) -> set[UUID]:
    """The moves among `changes` that would put a directory of `tree` below itself."""
    moves = {change.node_id: change.after for change in changes if change.after is not None}
    moved = {change.node_id for change in changes if change.moves}
    found: set[UUID] = set()
    for start in moved - found:
        way, node_id = [start], moves[start].parent_id
        while node_id != ROOT and node_id != start and len(way) <= len(tree) + len(moves):
            way.append(node_id)
            node = moves.get(node_id) or tree.get(node_id)
            if node is None:
                break
            node_id = node.parent_id
        if node_id == start:
            found.update(moved.intersection(way))
    return found


# --- which changes belong together


def dependencies(changes: Iterable[Change]) -> dict[UUID, set[UUID]]:
    """What each change needs done with it, or before it, among `changes`.

    A node needs its parent's creation or move, and whatever frees its name; a directory's deletion needs every
    change of what stood in it.
    """
    by_id = {change.node_id: change for change in changes}
    stood: dict[tuple[UUID, str], UUID] = {}
    inside: dict[UUID, list[UUID]] = {}
    for node_id, change in by_id.items():
        if change.before is not None and (change.after is None or change.moves):
            stood[change.before.place] = node_id
            inside.setdefault(change.before.parent_id, []).append(node_id)
    needs: dict[UUID, set[UUID]] = {}
    for node_id, change in by_id.items():
        need = needs.setdefault(node_id, set())
        if change.after is None:
            need.update(inside.get(node_id, ()))
            continue
        parent = by_id.get(change.after.parent_id)
        if parent is not None and (parent.before is None or parent.moves):
            need.add(parent.node_id)
        occupant = stood.get(change.after.place)
        if occupant is not None and occupant != node_id:
            need.add(occupant)
    return needs


def closure(
    start: Iterable[UUID], needs: Mapping[UUID, Iterable[UUID]], found: set[UUID] | None = None
) -> set[UUID]:
    """`start`, and all that it needs, directly or not; added to `found`, which is closed already, where that is given."""
    found = set() if found is None else found
    stack = list(start)
    while stack:
        node_id = stack.pop()
        if node_id not in found:
            found.add(node_id)
            stack.extend(needs.get(node_id, ()))
    return found


def select(
    changes: Iterable[Change],
    *,
    limit: int,
    is_ready: Callable[[Change], bool],
    commit_of: Callable[[Change], int] | None = None,
    tree: Tree | None = None,
) -> list[Change]:
    """As many changes as may go now, each with all that it needs.

    Args:
        changes: Of one side, as a plan gives them.
        limit: About how many. A group that needs each other goes whole, so there may be more.
        is_ready: Whether a change's content is where it has to be.
        commit_of: Which journal entry brought a change (0: none); changes of one entry then go together.
        tree: What they are made to. Of moves that are right only with another that may not go yet, none goes then.

    Returns:
        The changes that may go, in the order given; empty when none may.
    """
    by_id = {change.node_id: change for change in changes}
    needs = dependencies(by_id.values())
    if commit_of is not None:
        _bind_commits(by_id, needs, commit_of)
    needed_by = _reversed(needs)
    blocked = closure((n for n, change in by_id.items() if not is_ready(change)), needed_by)
    while True:
        chosen = _choose(by_id, needs, blocked, limit)
        selected = [change for node_id, change in by_id.items() if node_id in chosen]
        closing = rings(selected, tree) if tree is not None else set()
        if not closing:
            return selected
        closure(closing, needed_by, blocked)


def _choose(
    by_id: Mapping[UUID, Change], needs: Mapping[UUID, set[UUID]], blocked: set[UUID], limit: int
) -> set[UUID]:
    """Ids of about `limit` changes, with all that each needs. Deletions come last, the topmost first.

    A deletion that needs more than there is room for (twenty thousand moves out of a directory) waits until some of
    that has gone without it; what cannot go in parts goes whole.
    """
    chosen: set[UUID] = set()
    operations = 0
    for node_id in sorted(by_id, key=lambda node_id: _rank(by_id[node_id], by_id)):
        if operations >= limit:
            break
        if node_id in blocked or node_id in chosen:
            continue
        group = closure([node_id], needs) - chosen
        cost = _cost(group, by_id)
        if chosen and by_id[node_id].after is None and operations + cost > limit:
            continue
        for part in _in_order(group, needs) if operations + cost > limit else (group,):
            if operations >= limit:
                break
            chosen |= part
            operations += _cost(part, by_id)
    return chosen


def _cost(group: Collection[UUID], by_id: Mapping[UUID, Change]) -> int:
    return sum(_rank(by_id[member], by_id) < _NESTED for member in group)


def _in_order(group: Collection[UUID], needs: Mapping[UUID, Iterable[UUID]]) -> Iterator[set[UUID]]:
    """The smallest parts of a group that can go one after the other: each needs none but those before it.

    Source: strongly connected components, by Tarjan's algorithm (1972), which gives them in this order.
    """
    number: dict[UUID, int] = {}
    low: dict[UUID, int] = {}
    open_ids: list[UUID] = []
    is_open: set[UUID] = set()
    for start in group:
        if start in number:
            continue
        number[start] = low[start] = len(number)
        open_ids.append(start)
        is_open.add(start)
        stack = [(start, iter(needs.get(start, ())))]
        while stack:
            node_id, needed = stack[-1]
            for other in needed:
                if other not in group:
                    continue
                if other not in number:
                    number[other] = low[other] = len(number)
                    open_ids.append(other)
                    is_open.add(other)
                    stack.append((other, iter(needs.get(other, ()))))
                    break
                if other in is_open:
                    low[node_id] = min(low[node_id], number[other])
            else:
                stack.pop()
                if stack:
                    low[stack[-1][0]] = min(low[stack[-1][0]], low[node_id])
                if low[node_id] == number[node_id]:
                    part: set[UUID] = set()
                    while node_id not in part:
                        part.add(open_ids.pop())
                    is_open -= part
                    yield part


def _rank(change: Change, by_id: Mapping[UUID, Change]) -> int:
    if change.after is not None:
        return 0
    assert change.before is not None
    parent = by_id.get(change.before.parent_id)
    return _NESTED if parent is not None and parent.after is None else 1


def _reversed(needs: Mapping[UUID, Iterable[UUID]]) -> dict[UUID, list[UUID]]:
    needed_by: dict[UUID, list[UUID]] = {}
    for node_id, needed in needs.items():
        for other in needed:
            needed_by.setdefault(other, []).append(node_id)
    return needed_by


def _bind_commits(
    by_id: Mapping[UUID, Change], needs: dict[UUID, set[UUID]], commit_of: Callable[[Change], int]
) -> None:
    """Make all changes of one journal entry need each other, as a ring."""
    last: dict[int, UUID] = {}
    first: dict[int, UUID] = {}
    for node_id, change in by_id.items():
        version = commit_of(change)
        if not version:
            continue
        if version in last:
            needs[node_id].add(last[version])
        else:
            first[version] = node_id
        last[version] = node_id
    for version, node_id in first.items():
        needs[node_id].add(last[version])


def overlay(
    tree: Tree, changes: Iterable[Change], aliases: Mapping[UUID, str]
) -> Callable[[UUID], str | None]:
    """A function from node ids to paths on disk as they will be after `changes`, which get these `aliases`."""
    after = {change.node_id: change.after for change in changes}

    def name_on_disk(node: Node) -> str:
        return aliases.get(node.node_id, node.name) if node.node_id in after else tree.name_on_disk(node)

    def path(node_id: UUID) -> str | None:
        names: list[str] = []
        while node_id != ROOT:
            node = after[node_id] if node_id in after else tree.get(node_id)
            if node is None or len(names) > 100_000:
                return None
            names.append(name_on_disk(node))
            node_id = node.parent_id
        return "/".join(reversed(names))

    return path

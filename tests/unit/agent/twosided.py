"""One device's three trees against a journal in memory: what the planner says is done, step by step, in any order.

The journal is the store's twin with the workers' real decision. The disk is the local tree itself: a person changes
it, and what the plan places changes it. Nothing here waits for anything but the store's twin, which never does.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID, uuid4

from agent.plan import Change, KeepAside, Plan, plan, select
from agent.replay import operations, replay
from agent.replica import agree
from agent.trees import UNHASHED, Node, Tree, Trees, replace
from broker.messages import CommitRequest, decode_entry
from broker.model import ROOT, Chunk, FullContent, Kind, Operation, manifest_digest
from metadata.memory import MemoryStore
from metadata.state import Accepted, Submission
from sync_workers.decide import decide

NAMES = ("a", "b", "c")
CONTENTS = ("", "x", "y", "xy", "xyz", "xqz")
"""Each letter is a chunk."""

MORE_CONTENTS = ("z", "q", "yq", "zq")
"""Of the same chunks. For tables of cases: a drawn number never means one of these."""


def manifest(letters: str) -> FullContent:
    """A content of one chunk per letter."""
    return FullContent(16, tuple(Chunk(hashlib.sha256(c.encode()).digest(), ord(c)) for c in letters))


def digest_of(letters: str) -> bytes:
    """The digest of `manifest`."""
    return manifest_digest(manifest(letters).chunks)


MANIFESTS = {digest_of(letters): manifest(letters) for letters in (*CONTENTS, *MORE_CONTENTS)}
SIZES = {digest: sum(chunk.size for chunk in content.chunks) for digest, content in MANIFESTS.items()}


def new_file(node_id: UUID, parent_id: UUID, name: str, letters: str, mtime_ns: int = 1) -> Node:
    """A file as both a scan and the journal may have it."""
    digest = digest_of(letters)
    return Node(
        node_id=node_id,
        parent_id=parent_id,
        name=name,
        kind=Kind.FILE,
        mode=0o644,
        mtime_ns=mtime_ns,
        size=SIZES[digest],
        digest=digest,
    )


def new_directory(node_id: UUID, parent_id: UUID, name: str) -> Node:
    """A directory."""
    return Node(node_id=node_id, parent_id=parent_id, name=name, kind=Kind.DIRECTORY, mode=0o755)


def new_link(node_id: UUID, parent_id: UUID, name: str, target: str) -> Node:
    """A symbolic link."""
    return Node(node_id=node_id, parent_id=parent_id, name=name, kind=Kind.SYMLINK, target=target)


class Run:
    """The trees, the journal, and what has happened."""

    def __init__(self) -> None:
        self.trees = Trees()
        self.store = MemoryStore()
        self.user_id, self.workspace_id = uuid4(), uuid4()
        self.here, self.elsewhere = uuid4(), uuid4()
        self.number = {self.here: 0, self.elsewhere: 0}
        self.received = 0
        self.sent: tuple[int, dict[UUID, Node | None]] | None = (
            None  # own entry to come, and what was on disk
        )
        self.unread: dict[UUID, bytes] = {}  # the true digest of files that nobody has hashed yet
        self.known_contents: set[bytes] = set()  # all that the journal has ever held
        self.ids = 0
        _now(self._begin())

    async def _begin(self) -> None:
        await self.store.add_user(self.user_id)
        await self.store.add_workspace(self.workspace_id, self.user_id)
        for device_id in (self.here, self.elsewhere):
            await self.store.add_device(device_id, self.user_id, "queue")
        for letters in CONTENTS:
            for chunk in manifest(letters).chunks:
                await self.store.add_chunk(chunk.hash, chunk.size)
                await self.store.prove(self.user_id, chunk.hash)

    def new_id(self) -> UUID:
        """The same ids in each run: a failure can be played again."""
        self.ids += 1
        return UUID(int=self.ids)

    # --- the journal

    def head_tree(self) -> Tree:
        """What the journal says now, which this device may not have received yet."""
        tree = Tree()
        for entry, _ in self.store.journal[self.workspace_id]:
            tree.update(replay(decode_entry(entry), tree, MANIFESTS.get).nodes)
        return tree

    def commit(self, device_id: UUID, asked: Sequence[Operation]) -> bool:
        """Ask the workers' decision. Whether it was accepted."""
        self.number[device_id] += 1
        request = CommitRequest(
            workspace_id=self.workspace_id,
            incarnation=device_id,
            number=self.number[device_id],
            cursor=self.store.workspaces[self.workspace_id].head,
            operations=tuple(asked),
        )
        submission = Submission(device_id=device_id, request=request)
        outcome = _now(self.store.commit_batch([submission], decide)).outcomes[0]
        self.last_outcome = outcome
        return isinstance(outcome, Accepted)

    def receive(self) -> None:
        """Take all that the journal has and this device does not, as `receive` does."""
        trees = self.trees
        for data, _ in self.store.journal[self.workspace_id][self.received :]:
            entry = decode_entry(data)
            replayed = replay(entry, trees.remote, MANIFESTS.get)
            synced: dict[UUID, Node | None] = {}
            if self.sent is not None and entry.device_id == self.here and entry.number == self.sent[0]:
                for node_id, remote in replayed.nodes.items():
                    if node_id in self.sent[1] or remote is None:
                        synced[node_id] = agree(trees.synced.get(node_id), remote, self.sent[1].get(node_id))
                self.sent = None
            trees.tombstones.update(replayed.tombstones)
            for node_id, node in replayed.nodes.items():
                if node is not None:
                    trees.tombstones.pop(node_id, None)
            self.write(remote=replayed.nodes, synced=synced)
            self.known_contents.update(n.digest for n in replayed.nodes.values() if n and n.digest)
            self.received += 1

    def change_elsewhere(self, changes: Iterable[Change]) -> bool:
        """Another device, which has seen all, commits."""
        tree = self.head_tree()
        tombstones: dict[UUID, int] = {}
        return self.commit(self.elsewhere, operations(changes, tree, tombstones, MANIFESTS.get))

    # --- the trees

    def write(self, **changes: dict[UUID, Node | None]) -> None:
        """Change trees, as `Replica.write` does."""
        trees = self.trees
        touched: set[UUID] = set()
        for name, nodes in changes.items():
            getattr(trees, name).update(nodes)
            touched.update(nodes)
        trees.touch(touched)
        for node_id in touched:
            if node_id not in trees.local and node_id not in trees.synced:
                trees.tombstones.pop(node_id, None)
                trees.unannounced.discard(node_id)

    def plan(self) -> Plan:
        """What the planner says now."""
        return plan(self.trees, device="laptop", date="2026-11-22")

    # --- what the agent does

    def hash_all(self) -> None:
        """All unread files are read."""
        found = {}
        for node_id, digest in self.unread.items():
            node = self.trees.local.get(node_id)
            if node is not None and node.is_unhashed:
                found[node_id] = replace(node, digest=digest)
        self.unread.clear()
        self.write(local=dict(found))

    def identify(self, planned: Plan) -> None:
        """Carry out adoptions, or else keep aside: nothing else may be done while there is any."""
        if planned.adoptions:
            self._adopt(planned)
            return
        for aside in planned.asides:
            self._keep_aside(aside)

    def _adopt(self, planned: Plan) -> None:
        local = self.trees.local
        changes: dict[UUID, Node | None] = {}
        new_ids = {adoption.local_id: adoption.remote_id for adoption in planned.adoptions}
        for old_id, new_id in new_ids.items():
            node = local.get(old_id)
            if node is None:
                continue
            changes.setdefault(old_id, None)
            parent_id = new_ids.get(node.parent_id, node.parent_id)
            changes[new_id] = replace(node, node_id=new_id, parent_id=parent_id)
            for child in local.children(old_id):
                if child.node_id not in new_ids:
                    changes[child.node_id] = replace(child, parent_id=new_id)
        self.write(local=changes)

    def _keep_aside(self, aside: KeepAside) -> None:
        assert self.trees.local.child(aside.local.parent_id, aside.name) is None, "the name was taken"
        changes: dict[UUID, Node | None] = {}
        if aside.new_id != aside.local.node_id:
            assert aside.new_id not in self.trees.local
            changes[aside.local.node_id] = None
        changes[aside.new_id] = replace(aside.local, node_id=aside.new_id, name=aside.name)
        self.write(local=changes)

    def agree_on(self, planned: Plan) -> None:
        """The merge base learns what both sides agree on."""
        self.write(synced={node_id: self.trees.remote.get(node_id) for node_id in planned.agreed})

    def send(self, planned: Plan, limit: int = 10**9) -> None:
        """Ask for what can be committed. Must be accepted when everything was received before."""
        if self.sent is not None:
            return
        behind = self.received < len(self.store.journal[self.workspace_id])
        changes = select(planned.commit, limit=limit, is_ready=lambda change: True)
        if not changes:
            return
        asked = operations(changes, self.trees.remote, self.trees.tombstones, MANIFESTS.get)
        sent = {change.node_id: self.trees.local.get(change.node_id) for change in changes}
        if self.commit(self.here, asked):
            self.sent = (self.number[self.here], sent)
        else:
            assert behind, ("refused though nobody raced", self.last_outcome, asked)

    def place(self, planned: Plan, stays: Callable[[Node], bool] = lambda node: False) -> None:
        """Put in place what can be. `stays` says which directories hold something that is not synced."""
        changes = select(
            planned.place,
            limit=10**9,
            is_ready=lambda change: True,
            commit_of=lambda change: self._commit_of(change),
        )
        after: dict[UUID, Node | None] = {}
        synced: dict[UUID, Node | None] = {}
        trees = self.trees
        comes = {change.after.place: change.after for change in changes if change.after is not None}
        stayed: dict[tuple[UUID, str], UUID] = {}
        for change in changes:
            self._check_not_lost(change)
            gone = change.before if change.after is None else None
            if gone is not None and gone.kind is Kind.DIRECTORY and (stays(gone) or self._holds(gone)):
                synced[change.node_id] = None
                stayed[gone.place] = change.node_id
                trees.unannounced.add(change.node_id)
        for change in changes:
            if change.node_id in stayed.values() or self._fails(change, stayed, comes):
                continue
            local = None if change.after is None else replace(change.after, version=0)
            after[change.node_id] = local
            synced[change.node_id] = agree(
                trees.synced.get(change.node_id), trees.remote.get(change.node_id), local
            )
        self.write(local=after, synced=synced)
        self.check_tree(trees.local)

    def _holds(self, directory: Node) -> bool:
        """Whether a directory that had to stay is in this one."""
        inside = {child.node_id for child in self.trees.local.children(directory.node_id)}
        return not inside.isdisjoint(self.trees.unannounced)

    @staticmethod
    def _fails(
        change: Change, stayed: dict[tuple[UUID, str], UUID], comes: dict[tuple[UUID, str], Node]
    ) -> bool:
        """Whether something that stayed is in the way of this change, or of what is to hold it."""
        node, ids = change.after, {other.node_id: other for other in comes.values()}
        while node is not None:
            if node.place in stayed:
                return True
            node = ids.get(node.parent_id)
        return False

    def _commit_of(self, change: Change) -> int:
        remote = self.trees.remote.get(change.node_id)
        return remote.version if remote is not None else self.trees.tombstones.get(change.node_id, 0)

    def _check_not_lost(self, change: Change) -> None:
        before = change.before
        if before is None or before.kind is not Kind.FILE or (not change.fills and change.after is not None):
            return
        assert before.digest in self.known_contents, ("a content is lost", change)

    # --- what must hold

    def check_plan(self, planned: Plan) -> None:
        """What no plan may ever say."""
        assert planned == self.plan(), "two plans of one state"
        synced = self.trees.synced
        for side, changes in (("commit", planned.commit), ("place", planned.place)):
            for change in changes:
                base = synced.get(change.node_id)
                if change.after is None:
                    assert change.before is not None
                    assert base is not None, (side, "deletes what nobody has agreed on", change)
                    assert change.before.content == base.content, (side, "deletes an edit", change)

    @staticmethod
    def check_tree(tree: Tree) -> None:
        """Unique names, live parents that are directories, no rings."""
        places = [node.place for node in tree.nodes.values()]
        assert len(places) == len(set(places)), "two nodes of one name"
        for node in tree.nodes.values():
            assert tree.path(node.node_id) is not None, ("not connected", node)
            if node.parent_id != ROOT:
                assert tree.nodes[node.parent_id].kind is Kind.DIRECTORY
            assert tree.child(*node.place) == node

    def settle(self, stays: Callable[[Node], bool] = lambda node: False, rounds: int = 24) -> None:
        """Do all that is to be done until the plan is empty; then both sides must be equal."""
        for _ in range(rounds):
            self.hash_all()
            self.receive()
            planned = self.plan()
            self.check_plan(planned)
            if planned.is_empty:
                break
            if planned.adoptions or planned.asides:
                self.identify(planned)
                continue
            self.agree_on(planned)
            self.place(planned, stays)
            self.send(self.plan_of_commits())
        else:
            raise AssertionError(f"not quiet after {rounds} rounds: {self.plan()}")
        self.check_equal()

    def plan_of_commits(self) -> Plan:
        """The plan to commit by; empty while somebody has to be identified first."""
        planned = self.plan()
        return Plan() if planned.adoptions or planned.asides else planned

    def check_equal(self) -> None:
        """All trees say the same, but for directories that nobody is told of."""
        trees = self.trees
        self.check_tree(trees.remote)
        self.check_tree(trees.local)
        assert trees.dirty <= trees.unannounced, trees.dirty
        local = {node_id: _plain(node) for node_id, node in trees.local.nodes.items()}
        remote = {node_id: _plain(node) for node_id, node in trees.remote.nodes.items()}
        for node_id in trees.unannounced - trees.remote.nodes.keys():
            local.pop(node_id, None)
        assert local == remote


def _plain(node: Node) -> Node:
    return replace(
        node, version=0, content_version=0, mtime_ns=0 if node.kind is Kind.SYMLINK else node.mtime_ns
    )


def _now(work):
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


# --- what a person does to a tree: each takes a tree and three numbers, and gives what changes


def _pick(nodes: Iterable[Node], number: int) -> Node | None:
    ordered = sorted(nodes, key=lambda node: node.node_id.int)
    return ordered[number % len(ordered)] if ordered else None


def _directories(tree: Tree) -> list[UUID]:
    found = [node.node_id for node in tree.nodes.values() if node.kind is Kind.DIRECTORY]
    return [ROOT, *sorted(found, key=lambda node_id: node_id.int)]


class Person:
    """Changes a tree: the disk itself, or what another device commits."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def changes(self, tree: Tree, what: str, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        """What one action makes of a tree; nothing where it does not apply."""
        action: Callable[[Tree, int, int, int], dict[UUID, Node | None]] = getattr(self, f"_{what}")
        return action(tree, one, two, three)

    def _create(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        directories = _directories(tree)
        parent_id = directories[one % len(directories)]
        name = NAMES[two % len(NAMES)]
        if tree.child(parent_id, name) is not None:
            return {}
        return self._made(parent_id, name, three)

    def _made(self, parent_id: UUID, name: str, three: int) -> dict[UUID, Node | None]:
        node_id = self.run.new_id()
        kind = three % 8
        if kind < 3:
            node = new_directory(node_id, parent_id, name)
        elif kind == 3:
            node = new_link(node_id, parent_id, name, "to")
        else:
            node = new_file(node_id, parent_id, name, CONTENTS[three % len(CONTENTS)], mtime_ns=three % 3)
        return {node_id: node}

    def _edit(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        node = _pick((n for n in tree.nodes.values() if n.kind is not Kind.DIRECTORY), one)
        if node is None:
            return {}
        if node.kind is Kind.SYMLINK:
            return {node.node_id: replace(node, target=f"to {two % 3}")}
        digest = digest_of(CONTENTS[two % len(CONTENTS)])
        return {node.node_id: replace(node, digest=digest, size=SIZES[digest], mtime_ns=three % 3)}

    def _move(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        node = _pick(tree.nodes.values(), one)
        if node is None:
            return {}
        below = {node.node_id, *(n.node_id for n in tree.below(node.node_id))}
        directories = [d for d in _directories(tree) if d not in below]
        place = (directories[two % len(directories)], NAMES[three % len(NAMES)])
        if tree.child(*place) is not None:
            return {}
        return {node.node_id: replace(node, parent_id=place[0], name=place[1])}

    def _swap(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        a, b = _pick(tree.nodes.values(), one), _pick(tree.nodes.values(), two)
        if a is None or b is None or a is b:
            return {}
        if self._is_inside(tree, a, b) or self._is_inside(tree, b, a):
            return {}
        return {
            a.node_id: replace(a, parent_id=b.parent_id, name=b.name),
            b.node_id: replace(b, parent_id=a.parent_id, name=a.name),
        }

    @staticmethod
    def _is_inside(tree: Tree, inner: Node, outer: Node) -> bool:
        return any(node.node_id == inner.node_id for node in tree.below(outer.node_id))

    def _invert(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        """a/b becomes b/a."""
        inner = _pick(
            (n for n in tree.nodes.values() if n.kind is Kind.DIRECTORY and n.parent_id != ROOT), one
        )
        if inner is None:
            return {}
        outer = tree.nodes[inner.parent_id]
        if inner.name == outer.name or tree.child(inner.node_id, outer.name) is not None:
            return {}
        if tree.child(outer.parent_id, inner.name) is not None:
            return {}
        return {
            inner.node_id: replace(inner, parent_id=outer.parent_id),
            outer.node_id: replace(outer, parent_id=inner.node_id),
        }

    def _delete(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        node = _pick(tree.nodes.values(), one)
        if node is None:
            return {}
        return {node.node_id: None, **{n.node_id: None for n in tree.below(node.node_id)}}

    def _replace(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        """Something else, perhaps of another kind, under the same name."""
        node = _pick(tree.nodes.values(), one)
        if node is None:
            return {}
        return {**self._delete(tree, one, two, three), **self._made(node.parent_id, node.name, three)}

    def _chmod(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        node = _pick((n for n in tree.nodes.values() if n.kind is not Kind.SYMLINK), one)
        return {} if node is None else {node.node_id: replace(node, mode=(0o644, 0o600, 0o755)[two % 3])}

    def _touch(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        node = _pick((n for n in tree.nodes.values() if n.kind is Kind.FILE), one)
        return {} if node is None else {node.node_id: replace(node, mtime_ns=two % 3)}

    def _tag(self, tree: Tree, one: int, two: int, three: int) -> dict[UUID, Node | None]:
        """Extended attributes: one set, or another, or removed."""
        node = _pick((n for n in tree.nodes.values() if n.kind is not Kind.SYMLINK), one)
        if node is None:
            return {}
        values = dict(node.xattrs)
        name = ("user.a", "user.b")[two % 2]
        if three % 3:
            values[name] = b"%d" % three
        else:
            values.pop(name, None)
        return {node.node_id: replace(node, xattrs=tuple(sorted(values.items())))}


ACTIONS = ("create", "edit", "move", "swap", "invert", "delete", "replace", "chmod", "touch", "tag")


def act_here(run: Run, person: Person, what: str, numbers: tuple[int, int, int]) -> None:
    """The person changes the disk; a new content is not known until it was read."""
    local = run.trees.local
    changes = person.changes(local, what, *numbers)
    seen: dict[UUID, Node | None] = {}
    for node_id, node in changes.items():
        seen[node_id] = None if node is None else replace(node, version=0)
        if node is not None and node.digest and node.digest != getattr(local.get(node_id), "digest", None):
            run.unread[node_id] = node.digest
            seen[node_id] = replace(node, digest=UNHASHED, version=0)
    run.write(local=seen)


def act_elsewhere(run: Run, person: Person, what: str, numbers: tuple[int, int, int]) -> None:
    """Another device commits such a change."""
    tree = run.head_tree()
    changes = person.changes(tree, what, *numbers)
    changes = {k: v for k, v in changes.items() if tree.get(k) != v}
    if changes:
        accepted = run.change_elsewhere([Change(tree.get(k), v) for k, v in changes.items()])
        assert accepted, run.last_outcome

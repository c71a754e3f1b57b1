"""What would be done, and why; what one path is, and what it waits for: in a person's words. Pure.

It reads what the planner reads, and plans as the agent does. Where who is who has to be settled first (adoptions, conflict
copies), it does so on a copy of the trees, so that all that follows shows as well.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final
from uuid import UUID

from msgspec import Struct, structs

from agent.ignore import DEFAULTS, RULES_NAME
from agent.names import read_conflict_name
from agent.plan import Adoption, Change, KeepAside, Plan, is_conflict, merge_node, overlay, plan
from agent.trees import Node, Tree, Trees, replace, same
from broker.model import ROOT, Kind, fold_name

UP: Final = "up"
DOWN: Final = "down"
WAITS: Final = "waits"

_RESERVED: Final = ".hutch"
_HELD: Final = "held"
_ROUNDS: Final = 50
"""How often who is who is settled before it is told of as it stands. Each round settles all that it can."""


class Reason(Struct, frozen=True):
    """Why something is left out: a code of `docs/cli.md`, and a sentence."""

    code: str
    message: str


class View(Struct, frozen=True, kw_only=True):
    """All that is known of a folder at one moment.

    Attributes:
        trees: The three trees. Are not changed.
        device: This device's name, and `date` today: conflict copies would be called by them.
        cursor: Up to which sequence the journal was received; None before the first contact.
        head: How far the journal is known to go.
        is_looked: Whether the whole folder was looked at: nothing is planned before.
        is_unclaimed: Whether nothing may be told to the journal yet, because the merge base was lost.
        is_paused: Whether a person has paused the agent.
        is_running: Whether an agent runs.
        in_flight: What the request that awaits its answer holds, by node; None when there is none.
        placing: What is being put in place at this moment.
        parked: What the service has refused for good.
        broken: What cannot be had, or placed, here.
        problems: What the last looks could not sync, by path; those of the whole folder by what is no path.
        planned: The plan for all this, where there is one already; None: it is made.
    """

    trees: Trees
    device: str = ""
    date: str = ""
    cursor: int | None = 0
    head: int = 0
    is_looked: bool = True
    is_unclaimed: bool = False
    is_paused: bool = False
    is_running: bool = True
    in_flight: Mapping[UUID, Node | None] | None = None
    placing: Collection[UUID] = ()
    parked: Mapping[UUID, Reason] = {}
    broken: Mapping[UUID, Reason] = {}
    problems: Mapping[str, Reason] = {}
    planned: Plan | None = None

    @property
    def behind(self) -> int:
        """How many commits are known to be there that were not received yet."""
        return max(0, self.head - (self.cursor or 0))

    @property
    def is_held(self) -> bool:
        """Whether the service holds what this device sends, until a person has decided."""
        return any(reason.code == _HELD for _, reason in _of_the_whole(self))


class Item(Struct, frozen=True, kw_only=True):
    """One node that is to be sent, to be fetched, or that waits, and why.

    Attributes:
        direction: `UP`, `DOWN` or `WAITS`.
        change: `new`, `changed`, `renamed`, `deleted` or `attributes`.
        path: Where it stands or shall stand; of what goes, where it stood.
        previous: Where what is renamed stood.
        size_bytes: Of a file's content.
        moves_bytes: Whether that content has to be sent or fetched.
        waits_for: Paths of what has to be done first.
    """

    node_id: UUID
    direction: str
    change: str
    path: str
    why: str
    previous: str | None = None
    size_bytes: int = 0
    moves_bytes: bool = False
    waits_for: tuple[str, ...] = ()


class Outlook(Struct, frozen=True, kw_only=True):
    """All that is to be done in a folder: each by path. `notes` are about the folder as a whole."""

    up: tuple[Item, ...] = ()
    down: tuple[Item, ...] = ()
    waits: tuple[Item, ...] = ()
    notes: tuple[str, ...] = ()


def outlook(view: View) -> Outlook:
    """What would be done in a folder, and why, as far as it is known now."""
    if view.cursor is None:
        return Outlook(notes=(*_notes(view), "nothing was received from the service yet"))
    if not view.is_looked:
        return Outlook(notes=(*_notes(view), "the folder is being looked at: ask again in a moment"))
    return _Outlook(view).run()


def _notes(view: View) -> tuple[str, ...]:
    notes = [f"{reason.message} ({reason.code})" for path, reason in _of_the_whole(view)]
    if view.is_paused:
        notes.append("the agent is paused: nothing is done until `hutch resume`")
    if not view.is_running:
        notes.append("no agent runs: this is as of when the last one did (hutch run)")
    if view.behind:
        number = "1 commit" if view.behind == 1 else f"{view.behind} commits"
        notes.append(f"{number} of the folder's journal still to be received")
    return tuple(notes)


def _of_the_whole(view: View) -> Iterable[tuple[str, Reason]]:
    return ((path, reason) for path, reason in view.problems.items() if not path or path.startswith("\0"))


# --- who is who, settled on a copy


class _Settled(Struct):
    """Trees in which who is who is settled, the plan for them, and what was settled: conflict copies by their new ids."""

    trees: Trees
    planned: Plan
    asides: dict[UUID, KeepAside]


def _settle(view: View) -> _Settled:
    trees = view.trees
    held = {*view.parked, *view.broken, *trees.all_ignored()}
    planned = view.planned or plan(trees, device=view.device, date=view.date, held=held)
    asides: dict[UUID, KeepAside] = {}
    for _ in range(_ROUNDS):
        if not (planned.adoptions or planned.asides):
            break
        if trees is view.trees:
            trees = trees.copy()
        if planned.adoptions:
            _adopt(trees, planned.adoptions)
        else:
            for aside in planned.asides:
                _keep_aside(trees, aside)
                asides[aside.new_id] = aside
        planned = plan(trees, device=view.device, date=view.date, held=held)
    return _Settled(trees, planned, asides)


def _adopt(trees: Trees, adoptions: Iterable[Adoption]) -> None:
    """As `Fetcher._adopt` does it."""
    new_ids = {adoption.local_id: adoption.remote_id for adoption in adoptions}
    local: dict[UUID, Node | None] = {}
    for old_id, new_id in new_ids.items():
        node = trees.local.get(old_id)
        if node is None:
            continue
        local.setdefault(old_id, None)
        parent_id = new_ids.get(node.parent_id, node.parent_id)
        local[new_id] = replace(node, node_id=new_id, parent_id=parent_id)
        for child in trees.local.children(old_id):
            if child.node_id not in new_ids:
                local[child.node_id] = replace(child, parent_id=new_id)
    trees.local.update(local)
    trees.touch(local)


def _keep_aside(trees: Trees, aside: KeepAside) -> None:
    """As `Fetcher._keep_aside` does it, when the bytes do differ."""
    lost, copy = aside.local, aside.onto or aside.local
    local: dict[UUID, Node | None] = {}
    if aside.new_id != lost.node_id:
        local[lost.node_id] = None
        trees.synced.update({lost.node_id: None})
    local[aside.new_id] = replace(
        copy,
        node_id=aside.new_id,
        name=aside.name,
        mode=lost.mode,
        mtime_ns=lost.mtime_ns,
        size=lost.size,
        digest=lost.digest,
        target=lost.target,
    )
    trees.copies[aside.remote.node_id] = aside.new_id
    trees.local.update(local)
    trees.touch([aside.remote.node_id, *local])


# --- the list


class _Outlook:
    """One run of `outlook`."""

    def __init__(self, view: View) -> None:
        settled = _settle(view)
        self.view = view
        self.trees = settled.trees
        self.planned = settled.planned
        self.asides = settled.asides
        self.beside = {aside.remote.node_id: aside.name for aside in settled.asides.values()}
        self.path_after = overlay(self.trees.local, self.planned.place, {})
        self.busy = {c.node_id for c in (*self.planned.commit, *self.planned.place)}
        self.ignored = self.trees.all_ignored()

    def run(self) -> Outlook:
        up = [self._up(change) for change in self.planned.commit]
        waits: list[Item] = []
        if self.view.is_unclaimed:
            why = "waits until the service has told what other devices have deleted meanwhile"
            up, waits = [], [_waiting(item, why) for item in up]
        up += [
            self._unread(node_id) for node_id in self.trees.unread - self.ignored - self.view.parked.keys()
        ]
        down = [self._down(change) for change in self.planned.place]
        waits += [self._waits(node_id) for node_id in self._left_over()]
        return Outlook(up=_by_path(up), down=_by_path(down), waits=_by_path(waits), notes=_notes(self.view))

    def _left_over(self) -> Iterable[UUID]:
        """What the trees do not agree on, and nothing is to be done about now."""
        done = (
            self.busy
            | set(self.planned.agreed)
            | (self.trees.unread - self.ignored - self.view.parked.keys())
        )
        return sorted((self.trees.dirty | self.view.parked.keys()) - done, key=lambda node_id: node_id.int)

    # --- what goes up

    def _up(self, change: Change) -> Item:
        trees, node_id = self.trees, change.node_id
        where = trees.remote if change.after is None else trees.local
        path = where.path(node_id) or self.path_after(node_id) or trees.remote.path(node_id) or ""
        why = self._why_up(change)
        if self.view.in_flight is not None and node_id in self.view.in_flight:
            why += "; the service has been asked to take it"
        elif self.view.is_held:
            why += "; held, and waits for `hutch review`"
        return _item(change, UP, path, why, trees.remote.path(node_id))

    def _why_up(self, change: Change) -> str:
        node_id, before, after = change.node_id, change.before, change.after
        local, synced = self.trees.local.get(node_id), self.trees.synced.get(node_id)
        aside = self.asides.get(node_id)
        if aside is not None:
            return f"both sides changed {aside.remote.name}: this is yours, kept beside it"
        if after is None:
            return "deleted here"
        if before is None:
            if node_id not in self.trees.tombstones and synced is None:
                return "new here"
            if after.kind is Kind.DIRECTORY:
                return (
                    "deleted on another device, but it holds something that was changed here: it comes back"
                )
            return "deleted on another device, but changed here since: it comes back"
        verbs = []
        if change.moves:
            is_own = local is not None and synced is not None and local.place != synced.place
            verbs.append(
                "renamed" if is_own or synced is None else "given another name, since another has its own,"
            )
        if change.fills:
            verbs.append("changed")
        return f"{' and '.join(verbs) or 'mode or time changed'} here"

    def _unread(self, node_id: UUID) -> Item:
        trees = self.trees
        node, remote = trees.local.nodes[node_id], trees.remote.get(node_id)
        return Item(
            node_id=node_id,
            direction=UP,
            change="new" if remote is None else "changed",
            path=trees.local.path(node_id) or "",
            why="saved here, and yet to be read",
            size_bytes=node.size,
            moves_bytes=True,
        )

    # --- what comes down

    def _down(self, change: Change) -> Item:
        node_id, local = change.node_id, self.trees.local
        path = local.path(node_id) if change.after is None else self.path_after(node_id)
        why = self._why_down(change)
        if node_id in self.view.placing:
            why += "; it is being put in place"
        item = _item(change, DOWN, path or "", why, local.path(node_id))
        # What was there stands beside it by then: to a person the file has changed.
        return (
            structs.replace(item, change="changed")
            if node_id in self.beside and change.before is None
            else item
        )

    def _why_down(self, change: Change) -> str:
        node_id, before, after = change.node_id, change.before, change.after
        remote, synced = self.trees.remote.get(node_id), self.trees.synced.get(node_id)
        if node_id in self.beside and (before is None or change.fills):
            return f"both sides changed it: yours is kept beside as {self.beside[node_id]}"
        if after is None:
            is_moved = before is not None and synced is not None and before.place != synced.place
            return f"deleted on another device, {'merely renamed' if is_moved else 'unchanged'} here"
        if before is None:
            if synced is None:
                return "new on another device"
            if after.kind is Kind.DIRECTORY:
                return "deleted here, but it holds something that another device has changed: it comes back"
            return "deleted here, but changed on another device since: it comes back"
        verbs = []
        if change.moves:
            is_theirs = remote is not None and (synced is None or remote.place != synced.place)
            verbs.append("renamed" if is_theirs else "another has its name")
        if change.fills:
            verbs.append("changed")
        if verbs == ["another has its name"]:
            return "another has its name: it gets one of its own"
        return f"{' and '.join(verbs) or 'mode or time changed'} on another device"

    # --- what waits

    def _waits(self, node_id: UUID) -> Item:
        trees, view = self.trees, self.view
        remote, local, synced = (tree.get(node_id) for tree in (trees.remote, trees.local, trees.synced))
        path = trees.local.path(node_id) or trees.remote.path(node_id) or trees.synced.path(node_id) or ""
        is_ours = not same(local, synced)
        change = Change(synced, local) if is_ours or same(remote, synced) else Change(synced, remote)
        if change.before is None and change.after is None:
            change = Change(remote, local)
        why, waits_for = self._why_waits(node_id, remote, local, synced)
        if node_id in view.parked:
            why = f"the service refuses it: {view.parked[node_id].message}"
        item = _item(change, WAITS, path, why, None)
        return structs.replace(item, waits_for=waits_for)

    def _why_waits(
        self, node_id: UUID, remote: Node | None, local: Node | None, synced: Node | None
    ) -> tuple[str, tuple[str, ...]]:
        trees = self.trees
        if node_id in self.view.broken:
            return self.view.broken[node_id].message, ()
        if node_id in self.ignored:
            return "a rule ignores it: each device keeps what it has", ()
        if node_id in trees.unannounced and remote is None:
            inside = self._first_below(trees.local, node_id)
            holds = "it is not empty" if inside is None else f"it holds {inside}"
            return f"deleted on another device, and kept here: {holds}", () if inside is None else (inside,)
        if is_conflict(remote, local, synced):
            return (
                "both sides changed it: waits until the service has the earlier version of its conflict copy",
                (),
            )
        if merge_node(remote, local, synced) is None:
            return self._why_stays(node_id, local)
        return self._why_blocked(node_id, remote, local)

    def _why_stays(self, node_id: UUID, local: Node | None) -> tuple[str, tuple[str, ...]]:
        """A directory that shall go and cannot, on the side that still has it."""
        tree = self.trees.remote if local is None else self.trees.local
        inside = self._first_below(tree, node_id)
        whose = "deleted here" if local is None else "deleted on another device"
        if inside is None:
            return f"{whose}: waits for other changes", ()
        return f"{whose}: waits for {inside}, which is in it", (inside,)

    def _first_below(self, tree: Tree, node_id: UUID) -> str | None:
        """Something in a directory that is not about to go."""
        going = {c.node_id for c in (*self.planned.commit, *self.planned.place) if c.after is None}
        paths = (tree.path(node.node_id) for node in tree.below(node_id) if node.node_id not in going)
        return min((path for path in paths if path), default=None)

    def _why_blocked(
        self, node_id: UUID, remote: Node | None, local: Node | None
    ) -> tuple[str, tuple[str, ...]]:
        """What stands in the way of a node that shall be: a directory around it, or another of its name."""
        for node, tree in ((remote, self.trees.local), (local, self.trees.remote)):
            if node is None:
                continue
            other = tree.child(*node.place)
            if other is not None and other.node_id != node_id:
                path = tree.path(other.node_id) or other.name
                return f"waits for the name, which {path} has yet", (path,)
            if node.parent_id != ROOT and node.parent_id not in tree:
                source = self.trees.remote if node is remote else self.trees.local
                path = source.path(node.parent_id) or ""
                return f"waits for the directory {path}", (path,)
        return "waits for other changes that it belongs with", ()


def _waiting(item: Item, why: str) -> Item:
    return structs.replace(item, direction=WAITS, why=why)


def _by_path(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(sorted(items, key=lambda item: (item.path, item.node_id.int)))


def _item(change: Change, direction: str, path: str, why: str, previous: str | None) -> Item:
    node = change.after or change.before
    assert node is not None  # a change has at least one end
    fills = change.fills and change.after is not None and change.after.kind is Kind.FILE
    return Item(
        node_id=change.node_id,
        direction=direction,
        change=_word(change),
        path=path,
        why=why,
        previous=previous if change.moves and previous != path else None,
        size_bytes=node.size,
        moves_bytes=fills,
    )


def _word(change: Change) -> str:
    if change.after is None:
        return "deleted"
    if change.before is None:
        return "new"
    if change.moves:
        return "renamed"
    return "changed" if change.fills else "attributes"


# --- one path


class Seen(Struct, frozen=True, kw_only=True):
    """What stands at a path on disk at this moment.

    Attributes:
        kind: `file`, `directory`, `symlink` or `special`; None: nothing.
        is_changed: Whether it is not as the last look saw it.
        rule: The rule by which it, or a directory above it, is ignored.
        link: The symbolic link on the way to it, if one is.
        bad_name: Why no device may have such a name.
    """

    kind: str | None = None
    is_changed: bool = False
    rule: str | None = None
    link: str | None = None
    bad_name: str | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    """What one path is on this device.

    Attributes:
        state: A word for scripts, of those in `docs/cli.md`.
        sentences: The same for people, the most important first.
        version: The sequence of the commit that last changed it, as far as was received; None: no device has it.
        agreed: The version on which this device and the service last agreed; None: on none.
        rule: By which it is ignored.
        own_name: What it is called on other devices, where this disk knows it by an alias.
        waits_for: Paths of what has to be done first.
    """

    path: str
    state: str
    sentences: tuple[str, ...]
    version: int | None = None
    agreed: int | None = None
    rule: str | None = None
    own_name: str | None = None
    waits_for: tuple[str, ...] = ()


def explain(view: View, path: str, seen: Seen, found: Outlook | None = None) -> Explanation:
    """Say what a path is, and what it waits for.

    Args:
        view: The folder.
        path: Relative to the folder, as the disk has it; `""` is the folder itself.
        seen: What stands there.
        found: The folder's outlook, where it is known already.
    """
    found = found or outlook(view)
    first = path.split("/")[0]
    if not path:
        return Explanation(path=path, state="folder", sentences=_of_the_folder(found))
    if fold_name(first) == _RESERVED:
        return _left_out(path, "own", "This is Hutch's own: it is never synced.")
    if seen.link is not None:
        text = f"{seen.link} is a symbolic link: it is synced as a link, and nothing is synced through it."
        return _left_out(path, "behind_link", text)
    if seen.bad_name is not None:
        return _left_out(path, "bad_name", f"Not synced: {seen.bad_name}, so no device may have it.")
    node = view.trees.local.find(path)
    if (about := _problem_at(view, path, seen)) is not None:
        return _with_versions(view, about, node)
    if seen.rule is not None:
        return _with_versions(view, _ignored(view, path, seen.rule, node), node)
    if node is None and seen.kind == "special":
        return _left_out(path, "special", "Not synced: pipes, sockets and devices are not.")
    return _Explaining(view, path, seen, found).run()


def _left_out(path: str, state: str, text: str) -> Explanation:
    return Explanation(path=path, state=state, sentences=(text,))


def _of_the_folder(found: Outlook) -> tuple[str, ...]:
    counts = [
        f"{len(items)} {words}"
        for items, words in ((found.up, "to send"), (found.down, "to fetch"), (found.waits, "waiting"))
        if items
    ]
    return (f"This is a synced folder: {', '.join(counts) or 'all is synced'}.", *map(_sentence, found.notes))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _problem_at(view: View, path: str, seen: Seen) -> Explanation | None:
    """What the last look could not sync at a path, or at a directory above it."""
    names = path.split("/")
    for depth in range(len(names), 0, -1):
        at = "/".join(names[:depth])
        reason = view.problems.get(at)
        if reason is None or (depth < len(names) and reason.code not in ("mount", "unreadable", "bad_name")):
            continue
        if reason.code == "bad_rule":
            continue
        where = "" if at == path else f" (that is {at})"
        text = f"Not synced: {reason.message}{where}."
        return _left_out(path, reason.code, text)
    return None


def _ignored(view: View, path: str, rule: str, node: Node | None) -> Explanation:
    whose = "one of Hutch's own rules" if rule in DEFAULTS else f"a line of {RULES_NAME}"
    sentences = [f"Not synced: `{rule}`, {whose}, ignores it."]
    told = node is not None and node.node_id in view.trees.remote
    if told or (node is None and view.trees.remote.find(path) is not None):
        sentences.append("It was synced before, or another device has it: each device keeps what it has.")
    return Explanation(path=path, state="ignored", sentences=tuple(sentences), rule=rule)


def _with_versions(view: View, about: Explanation, node: Node | None) -> Explanation:
    known = node or view.trees.remote.find(about.path)
    if known is None:
        return about
    remote, synced = view.trees.remote.get(known.node_id), view.trees.synced.get(known.node_id)
    return structs.replace(
        about,
        version=None if remote is None else remote.version,
        agreed=None if synced is None else synced.version or None,
    )


class _Explaining:
    """One run of `explain`, for what is neither left out by rule nor by nature."""

    def __init__(self, view: View, path: str, seen: Seen, found: Outlook) -> None:
        self.view = view
        self.path = path
        self.seen = seen
        trees = view.trees
        self.node = trees.local.find(path) or trees.remote.find(path) or trees.synced.find(path)
        node_id = None if self.node is None else self.node.node_id
        self.items = {i.direction: i for i in (*found.up, *found.down, *found.waits) if i.node_id == node_id}
        self.notes = found.notes

    def run(self) -> Explanation:
        state, sentences = self._state()
        node = self.node
        own_name = None if node is None else self._own_name(node)
        if own_name is not None:
            sentences.append(
                f"On the other devices it is called {own_name}: to this disk that is another one's name already."
            )
        sentences += self._copy()
        sentences += self._versions(state)
        sentences += [_sentence(note) for note in self.notes]
        waits = self.items.get(WAITS)
        about = Explanation(
            path=self.path,
            state=state,
            sentences=tuple(sentences),
            own_name=own_name,
            waits_for=() if waits is None else waits.waits_for,
        )
        return _with_versions(self.view, about, node)

    def _own_name(self, node: Node) -> str | None:
        local = self.view.trees.local
        return local.nodes[node.node_id].name if node.node_id in local.aliases else None

    def _state(self) -> tuple[str, list[str]]:
        view, node, seen = self.view, self.node, self.seen
        is_local = node is not None and node.node_id in view.trees.local
        if seen.kind is not None and not is_local:
            text = "It is on disk, and the folder was not looked at since it came: it is about to be."
            return "unseen", [text]
        if is_local and seen.kind is None:
            return "unseen", [
                "It was here at the last look, and is gone from the disk now: it is about to be looked for."
            ]
        if node is None:
            return "absent", [
                "There is nothing of this name here, nor on another device as far as is known.",
                "What was deleted stays in the history.",
            ]
        sentences = []
        if seen.is_changed:
            sentences.append("It has changed on disk since the last look: what follows is of before.")
        state, text = self._known_state(node, is_local)
        return ("unseen" if seen.is_changed else state), [*sentences, text]

    def _known_state(self, node: Node, is_local: bool) -> tuple[str, str]:
        view, node_id = self.view, node.node_id
        if node_id in view.parked:
            reason = view.parked[node_id]
            return "refused", (
                f"The service refuses this change: {reason.message} ({reason.code})."
                " It is tried again when it changes, and in some minutes."
            )
        if node_id in view.broken:
            reason = view.broken[node_id]
            return (
                "missing",
                f"What another device has of it cannot be had here: {reason.message} ({reason.code}).",
            )
        if view.cursor is None or not view.is_looked:
            return "unknown", "What is to be done with it is not known yet."
        if view.trees.local.get(node_id) is not None and view.trees.local.nodes[node_id].is_unhashed:
            return "unread", "It was saved here, and is yet to be read, and then sent."
        return self._planned_state(node_id, is_local)

    def _planned_state(self, node_id: UUID, is_local: bool) -> tuple[str, str]:
        view = self.view
        up, down, waits = (self.items.get(direction) for direction in (UP, DOWN, WAITS))
        if view.in_flight is not None and node_id in view.in_flight:
            return "in_flight", f"It is on its way: {_of(up)}the service has yet to answer."
        if down is not None and "kept beside" in down.why:
            return "conflict", _sentence(down.why)
        if up is not None and up.why.startswith("both sides"):
            return "conflict", _sentence(up.why)
        if down is not None:
            also = "" if up is None else f"; to be sent: {up.why}"
            where = "A newer version is on its way here" if is_local else "It is to come here"
            return "to_fetch", f"{where}: {down.why}{also}."
        if up is not None:
            return "held" if view.is_held else "to_send", f"It is to be sent: {up.why}."
        if waits is not None:
            kept = node_id in view.trees.unannounced
            return ("kept" if kept else "waits"), _sentence(waits.why)
        if not is_local:
            return "absent", "It is not here, and nothing is to be done about it now."
        return "synced", "It is synced: this device and the service have the same."

    def _copy(self) -> list[str]:
        says = read_conflict_name(self.path.rpartition("/")[2])
        if says is None:
            return []
        return [
            f"This is the conflict copy that {says.device} kept on {says.date} of {says.original}"
            " (hutch conflicts show)."
        ]

    def _versions(self, state: str) -> list[str]:
        if self.node is None:
            return []
        trees, node_id = self.view.trees, self.node.node_id
        remote, synced = trees.remote.get(node_id), trees.synced.get(node_id)
        if remote is not None and state == "synced":
            return [f"Its version is {remote.version}, the commit that last changed it."]
        sentences = []
        if remote is not None:
            sentences.append(f"The service has version {remote.version} of it, as far as was received.")
        if synced is not None and synced.version:
            sentences.append(f"This device and the service last agreed on version {synced.version}.")
        elif remote is not None or synced is None:
            sentences.append("This device and the service never agreed on it yet.")
        return sentences


def _of(item: Item | None) -> str:
    return "" if item is None else f"{item.why.split(';')[0]}; "

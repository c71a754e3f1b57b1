"""The guard's own decision: what counts, when that is unusual, and what a permission covers. A table, a sentence each."""

from dataclasses import dataclass
from uuid import UUID

import pytest

from broker.messages import CommitRequest
from broker.model import ROOT, Cursor, Kind, Move
from metadata.state import Guard, Hold, Node, Verdict
from sync_workers.guard import Touched, Watch, count, digest_of, find_touched, is_unusual, make_hold

GUARD = Guard(min_nodes=50, share_percent=50)


def ids(first: int, last: int) -> frozenset[UUID]:
    return frozenset(UUID(int=number) for number in range(first, last))


def watch(
    touched: int = 0,
    standing: int | None = 100,
    allowed: int | None = None,
    counted: frozenset[UUID] = frozenset(),
) -> Watch:
    hold = (
        None
        if allowed is None
        else Hold(hold_id=UUID(int=1), verdict=Verdict.ACCEPTED, digest=b"", allowed=allowed)
    )
    return Watch(touched=touched, counted=set(counted), standing=standing, hold=hold)


def deleting(first: int, last: int) -> Touched:
    return Touched(deleted=ids(first, last), rewritten=frozenset())


@dataclass
class Row:
    sentence: str
    watch: Watch
    touched: Touched
    to_follow: int
    unusual: bool


ROWS = [
    Row("half of what stood is not unusual", watch(), deleting(1, 51), 0, False),
    Row("one more than half is", watch(), deleting(1, 52), 0, True),
    Row("fifty are never unusual", watch(standing=50), deleting(1, 51), 0, False),
    Row("all of fifty-one are", watch(standing=51), deleting(1, 52), 0, True),
    Row("many are usual where there are more", watch(standing=100_000), deleting(1, 50_001), 0, False),
    Row("what went before counts", watch(touched=50), deleting(1, 2), 0, True),
    Row(
        "what counts already does not count again",
        watch(touched=50, counted=ids(1, 51)),
        deleting(1, 51),
        0,
        False,
    ),
    Row("what is to follow counts", watch(), deleting(1, 2), 50, True),
    Row("what is to follow is nothing if nothing is touched now", watch(), deleting(1, 1), 500, False),
    Row(
        "deleted and rewritten add up",
        watch(),
        Touched(deleted=ids(1, 27), rewritten=ids(30, 55)),
        0,
        True,
    ),
    Row(
        "where it cannot matter nobody has counted what stood",
        watch(standing=None),
        deleting(1, 11),
        0,
        False,
    ),
    Row("what was allowed is not unusual", watch(allowed=60), deleting(1, 61), 0, False),
    Row("nor is it with what follows", watch(allowed=90), deleting(1, 21), 70, False),
    Row("a little more than was allowed may be usual", watch(allowed=60), deleting(1, 81), 0, False),
    Row("far more than was allowed is another change", watch(allowed=20), deleting(1, 81), 0, True),
    Row("a share of nothing is unusual", watch(standing=0, touched=60), deleting(1, 2), 0, True),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sentence)
def test_what_is_unusual(row: Row) -> None:
    assert is_unusual(GUARD, row.watch, row.touched, row.to_follow) is row.unusual


def test_at_a_hundred_percent_nothing_is() -> None:
    assert not is_unusual(Guard(min_nodes=0, share_percent=100), watch(), deleting(1, 101), 0)


def node(number: int, **fields: object) -> Node:
    values: dict[str, object] = {"parent_id": ROOT, "name": f"n{number}", "kind": Kind.FILE, "version": 1}
    return Node(node_id=UUID(int=number), **{**values, **fields})  # type: ignore[arg-type]


OLD = node(1, content_version=1)


@pytest.mark.parametrize(
    ("sentence", "before", "after", "expected"),
    [
        ("deleted", OLD, node(1, content_version=1, deleted=True), "deleted"),
        ("other content", OLD, node(1, content_version=2), "rewritten"),
        ("moved", OLD, node(1, content_version=1, name="elsewhere"), ""),
        ("another mode", OLD, node(1, content_version=1, mode=0o600), ""),
        ("moved and deleted", OLD, node(1, content_version=1, name="x", deleted=True), "deleted"),
        ("revived", node(1, deleted=True, content_version=1), node(1, content_version=2), ""),
        ("deleted again", node(1, deleted=True), node(1, deleted=True), ""),
        (
            "a link that says another thing",
            node(1, kind=Kind.SYMLINK, target="a"),
            node(1, kind=Kind.SYMLINK, target="b"),
            "rewritten",
        ),
    ],
)
def test_what_is_touched(sentence: str, before: Node, after: Node, expected: str) -> None:
    known = {before.node_id: before}
    touched = find_touched(known, {after.node_id: after}, known, ())
    found = {"deleted": touched.deleted, "rewritten": touched.rewritten}
    assert [key for key, nodes in found.items() if nodes] == ([expected] if expected else []), sentence


def test_what_is_young_or_new_is_not_touched() -> None:
    gone = node(1, deleted=True)
    known = {OLD.node_id: OLD}
    assert not find_touched(known, {gone.node_id: gone}, known, {OLD.node_id}).all  # made within the window
    assert not find_touched(known, {gone.node_id: gone}, {}, ()).all  # made by an earlier commit of the batch
    assert not find_touched({}, {gone.node_id: gone}, {}, ()).all


def test_a_permission_is_used_up() -> None:
    watched = watch(touched=3, allowed=10)
    assert count(watched, deleting(1, 5), to_follow=6) == []
    assert (watched.touched, watched.allowed) == (3, 6)
    assert len(count(watched, deleting(5, 13), to_follow=1)) == 2  # two more than it was
    assert (watched.touched, watched.allowed, watched.hold) == (5, 0, None)


def test_a_permission_ends_when_nothing_follows() -> None:
    watched = watch(allowed=10)
    assert count(watched, deleting(1, 1), to_follow=0) == []
    assert watched.allowed == 10  # a commit that touches nothing ends nothing
    assert count(watched, deleting(1, 3), to_follow=0) == []
    assert watched.hold is None


def test_what_counts_already_is_counted_anew_but_once() -> None:
    watched = watch(touched=4, counted=ids(1, 5))
    assert len(count(watched, deleting(3, 7), to_follow=0)) == 4
    assert watched.touched == 6


def request(number: int = 1, incarnation: int = 9, name: str = "a", seq: int = 3) -> CommitRequest:
    move = Move(node_id=UUID(int=1), base_version=1, parent_id=ROOT, name=name)
    return CommitRequest(
        workspace_id=UUID(int=5),
        incarnation=UUID(int=incarnation),
        number=number,
        cursor=Cursor(1, seq, bytes(32)),
        operations=(move,),
    )


def test_the_same_change_is_known_again() -> None:
    assert digest_of(request(1)) == digest_of(request(2, incarnation=8, seq=7))
    assert digest_of(request(name="a")) != digest_of(request(name="b"))


def test_a_person_is_shown_the_topmost_of_what_goes() -> None:
    tree = {
        each.node_id: each
        for each in (
            node(1, kind=Kind.DIRECTORY, name="d"),
            node(2, parent_id=UUID(int=1), name="inside"),
            node(3, name="beside"),
            node(4, kind=Kind.DIRECTORY, name="e"),
            node(5, parent_id=UUID(int=4), name="kept but changed"),
        )
    }
    touched = Touched(deleted=ids(1, 4), rewritten=ids(5, 6))
    hold = make_hold(request(), UUID(int=77), watch(touched=8), touched, tree, [b"chunk"])
    assert hold.deleted_paths == ("beside", "d")
    assert hold.rewritten_paths == ("e/kept but changed",)
    assert (hold.deleted, hold.rewritten, hold.recent, hold.chunks) == (3, 1, 8, frozenset([b"chunk"]))
    other = make_hold(request(2), UUID(int=77), watch(), touched, tree, [])
    assert hold.hold_id != other.hold_id

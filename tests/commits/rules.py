"""The rules around a commit's operations: replays, numbers, cursors, quota, chunks, batches. Each plays on any backing."""

from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256

from broker.messages import StagedCommitRequest, decode_entry, decode_xattrs, encode
from broker.model import (
    ConflictCode,
    CopiedContent,
    Cursor,
    Delete,
    FullContent,
    Put,
    Role,
    SplicedContent,
    subtree_digest,
)
from metadata.state import Accepted, Dead, Refused, Replayed, Submission
from sync_workers.decide import MAX_CONFLICTS, refuse_all
from tests.commits.follow import follow
from tests.commits.suite import commit
from tests.commits.words import chmod, copy, delete, link, mkdir, mount, move, put, splice
from tests.commits.world import Backing, World, codes, letter_chunk


def staged(submission: Submission, data: bytes) -> Submission:
    request = submission.request
    return Submission(
        device_id=submission.device_id,
        request=StagedCommitRequest(
            workspace_id=request.workspace_id,
            incarnation=request.incarnation,
            number=request.number,
            body=sha256(data).digest(),
        ),
    )


async def make(backing: Backing, quota_bytes: int | None = None) -> World:
    world = await World.make(backing, quota_bytes)
    for workspace in ("home", "alone", "other"):
        await world.look(workspace)
    return world


async def told(world: World, workspace: str = "home") -> tuple[object, ...]:
    """The operations of the last journal entry."""
    entry, _ = (await world.backing.list_journal(world.id(workspace)))[-1]
    return decode_entry(entry).operations


async def an_accepted_request_is_answered_the_same_again(backing: Backing) -> None:
    world = await make(backing)
    request = world.request([put("f")(world)])
    [first] = await world.submit(request)
    await commit(world, [put("g")], device="bob's")
    [again] = await world.submit(request)
    assert isinstance(first, Accepted)
    assert again == Replayed(at=first.head, entry=first.entry)
    assert len(await backing.list_journal(world.id("home"))) == 2


def xattrs_of(world: World, node: str) -> object:
    return decode_xattrs(world.nodes[world.id(node)].xattrs)


async def extended_attributes_stay_until_somebody_sets_others(backing: Backing) -> None:
    """An older agent does not send them: it takes none away by that. All that is set is what there is then."""
    world = await make(backing)
    one, two = (("user.a", b"1"),), (("user.a", b"2"), ("user.b", bytes(3)))
    says = [put("f", xattrs=one), mkdir("d", xattrs=two), link("l")]
    assert await commit(world, says) == []
    await world.look()
    assert (xattrs_of(world, "f"), xattrs_of(world, "d"), xattrs_of(world, "l")) == (one, two, ())
    assert await commit(world, [put("f", content="b"), chmod("d"), chmod("l", xattrs=one)]) == []
    assert await commit(world, [move("f", "g"), move("d", "e")]) == []
    await world.look()
    assert (xattrs_of(world, "f"), xattrs_of(world, "d"), xattrs_of(world, "l")) == (one, two, ())
    assert await commit(world, [chmod("f", xattrs=two), chmod("d", xattrs=())]) == []
    await world.look()
    assert (xattrs_of(world, "f"), xattrs_of(world, "d")) == (two, ())
    await follow(world)


async def a_revived_node_has_the_extended_attributes_that_came_with_it(backing: Backing) -> None:
    """With a move come all that it had; with a put or a new directory, those that are named."""
    world = await make(backing)
    one, two = (("user.a", b"1"),), (("user.b", b"2"),)
    says = [put(name, xattrs=one) for name in "fgh"] + [mkdir(name, xattrs=one) for name in "de"]
    assert await commit(world, says) == []
    assert await commit(world, [delete(name) for name in "fghde"]) == []
    says = [move("f"), put("g"), put("h", xattrs=two), move("d"), mkdir("e")]
    assert await commit(world, says) == []
    await world.look()
    assert [xattrs_of(world, name) for name in "fghde"] == [one, (), two, one, ()]
    await follow(world)


async def extended_attributes_that_no_node_may_have_are_refused(backing: Backing) -> None:
    world = await make(backing)
    assert await commit(world, [put("f"), mkdir("d")]) == []
    for bad in (
        (("security.selinux", b"x"),),
        (("user.", b"x"),),
        (("user.b", b""), ("user.a", b"")),
        (("user.a", b""), ("user.a", b"")),
        (("user.a\0", b""),),
        (("user." + "n" * 251, b""),),
        tuple((f"user.{number:03}", b"") for number in range(65)),
        (("user.a", bytes(65_536)),),
    ):
        says = [chmod("f", xattrs=bad), put("g", xattrs=bad), mkdir("e", xattrs=bad), mkdir("x")]
        assert await commit(world, says) == [("bad_name", 0), ("bad_name", 1), ("bad_name", 2)]
    most = tuple((f"user.{number:03}", bytes(1016)) for number in range(64))
    assert await commit(world, [chmod("f", xattrs=most)]) == []
    await follow(world)


async def a_refused_request_is_answered_the_same_again(backing: Backing) -> None:
    world = await make(backing)
    request = world.request([put("f", parent="d")(world)])
    [first] = await world.submit(request)
    assert codes(first) == [("parent_gone", 0)]
    await commit(world, [mkdir("d")], device="bob's")
    [again] = await world.submit(request)
    assert isinstance(first, Refused)
    assert again == Replayed(refusal=encode(first.refusal))


async def a_request_twice_in_one_batch_is_done_once(backing: Backing) -> None:
    world = await make(backing)
    request = world.request([put("f")(world)])
    first, again = await world.submit(request, request)
    assert isinstance(first, Accepted)
    assert again == Replayed(at=first.head, entry=first.entry)


async def a_lower_number_is_superseded_for_good(backing: Backing) -> None:
    world = await make(backing)
    low, high = world.request([put("f")(world)]), world.request([put("g")(world)])
    assert codes((await world.submit(high))[0]) == []
    assert codes((await world.submit(low))[0]) == [("superseded", None)]
    assert isinstance((await world.submit(high))[0], Replayed)


async def numbers_are_counted_apart(backing: Backing) -> None:
    world = await make(backing)
    outcomes = await world.submit(
        world.request([put("a")(world)], number=7),
        world.request([put("b")(world)], number=3, incarnation="another"),
        world.request([put("c")(world)], number=3, device="bob's", incarnation="another"),
        world.request([put("d")(world)], number=3, workspace="alone"),
    )
    assert [codes(outcome) for outcome in outcomes] == [[], [], [], []]


async def a_refusal_names_the_head(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [put("f")])
    await world.look()
    [refused] = await world.submit(world.request([put("f", base=None)(world)]))
    assert isinstance(refused, Refused)
    assert refused.refusal.head == world.heads["home"]


async def a_stranger_learns_nothing(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [put("f")])
    world.heads["nowhere"] = world.heads["home"]
    for workspace in ("home", "nowhere"):
        [refused] = await world.submit(world.request([put("g")(world)], workspace=workspace, device="dave's"))
        assert isinstance(refused, Refused)
        assert not refused.recorded
        assert codes(refused) == [("forbidden", None)]
        assert (refused.refusal.head.epoch, refused.refusal.head.seq) == (0, 0)


async def a_cursor_must_be_the_journals(backing: Backing) -> None:
    world = await make(backing)
    start = world.heads["home"]
    await commit(world, [put("f")])
    await commit(world, [put("g")])
    await world.look()
    head = world.heads["home"]
    wrong = [
        Cursor(2, head.seq, head.chain),
        Cursor(1, 3, head.chain),
        Cursor(1, 1, head.chain),
        Cursor(1, 0, head.chain),
        Cursor(1, 2, start.chain),
    ]
    for cursor in wrong:
        [refused] = await world.submit(world.request([put("h")(world)], cursor=cursor))
        assert codes(refused) == [("cursor_unknown", None)], cursor
    middle = Cursor(1, 1, (await backing.list_journal(world.id("home")))[0][1])
    for number, cursor in enumerate((start, middle, head)):
        name = f"n{number}"
        assert codes((await world.submit(world.request([put(name)(world)], cursor=cursor)))[0]) == []


async def a_batch_is_decided_in_order(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [put("f")])
    await world.look()
    outcomes = await world.submit(
        world.request([chmod("f")(world)]),
        world.request([chmod("f")(world)], device="bob's"),
        world.request([put("n1", "n", parent="d")(world)]),
        world.request([mkdir("d")(world)], device="bob's"),
        world.request([put("n2", "n", parent="d")(world)]),
        world.request([put("n3", "n", parent="d")(world)], device="bob's"),
        world.request([put("z")(world)], workspace="alone"),
    )
    assert [codes(outcome) for outcome in outcomes] == [
        [],
        [("stale_version", 0)],
        [("parent_gone", 0)],
        [],
        [],
        [("name_taken", 0)],
        [],
    ]
    assert await world.tree() == {"f": "a", "d": "/", "d/n": "a"}
    await follow(world)


async def a_delete_sees_what_its_batch_moved_below(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [mkdir("d"), mkdir("e"), put("x", parent="e"), put("y", parent="e")])
    await world.look()
    knows_nothing = world.request([delete("d")(world)], device="bob's")
    outcomes = await world.submit(world.request([move("e", parent="d")(world)]), knows_nothing)
    assert [codes(outcome) for outcome in outcomes] == [[], [("not_empty", 0)]]
    below = [(world.id("e"), 3), (world.id("x"), 1), (world.id("y"), 1)]
    await world.look()
    moved_again = world.request([move("e", "e2", parent="d")(world)])
    knows_all = Delete(node_id=world.id("d"), base_version=1, subtree=subtree_digest(below))
    outcomes = await world.submit(moved_again, world.request([knows_all], device="bob's"))
    assert [codes(outcome) for outcome in outcomes] == [[], []]
    assert await world.tree() == {}
    assert {node.version for node in world.nodes.values()} == {4}
    await follow(world)


async def a_delete_is_refused_when_what_is_below_has_changed(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [mkdir("d"), put("x", parent="d")])
    await world.look()
    planned = world.request([delete("d", "x")(world)], device="bob's")
    assert await commit(world, [chmod("x")]) == []
    assert codes((await world.submit(planned))[0]) == [("subtree_changed", 0)]


async def all_below_gets_its_tombstone(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [mkdir("d"), mkdir("e", parent="d"), put("x", parent="e")])
    assert await commit(world, [delete("d", "e", "x")]) == []
    await world.look()
    assert [(node.deleted, node.version) for node in world.nodes.values()] == [(True, 2)] * 3


async def the_owner_pays(backing: Backing) -> None:
    world = await make(backing, quota_bytes=35)
    assert await commit(world, [put("f", content="abc")], device="bob's") == []
    assert await commit(world, [put("g")], device="bob's") == [("over_quota", None)]
    assert await commit(world, [put("g")], workspace="other") == [("over_quota", None)]
    assert await commit(world, [put("f", content="a"), put("g", content="bc")]) == []
    assert await backing.used_bytes(world.id("alice")) == 30
    assert await backing.used_bytes(world.id("bob")) == 0
    await world.look()
    batch = [
        world.request([delete("g")(world)]),
        world.request([put("h", content="cd")(world)], device="bob's"),
    ]
    assert [codes(outcome) for outcome in await world.submit(*batch)] == [[], []]
    assert await backing.used_bytes(world.id("alice")) == 30
    assert await commit(world, [delete("f"), delete("h")]) == []
    assert await backing.used_bytes(world.id("alice")) == 0
    assert await commit(world, [move("f")]) == []
    assert await backing.used_bytes(world.id("alice")) == 10


async def who_is_over_a_lowered_quota_may_do_all_that_takes_no_more(backing: Backing) -> None:
    world = await make(backing, quota_bytes=30)
    assert await commit(world, [put("f", content="abc")]) == []
    await backing.set_quota(world.id("alice"), 15)
    assert await commit(world, [move("f", name="moved")]) == []
    assert await commit(world, [put("f", content="abd")]) == []
    assert await commit(world, [mkdir("d")]) == []
    assert await commit(world, [put("g", content="a")]) == [("over_quota", None)]
    assert await commit(world, [put("f", content="ab")]) == []
    assert await backing.used_bytes(world.id("alice")) == 20


async def a_quota_holds_over_a_batch(backing: Backing) -> None:
    world = await make(backing, quota_bytes=20)
    outcomes = await world.submit(
        world.request([put("f", content="a")(world)]),
        world.request([put("g", content="ab")(world)], workspace="other"),
        world.request([put("h", content="b")(world)], workspace="other", incarnation="another"),
    )
    assert [codes(outcome) for outcome in outcomes] == [[], [("over_quota", None)], []]


async def chunks_are_used_by_right(backing: Backing) -> None:
    world = await make(backing)
    assert await commit(world, [put("f", content="ab")]) == []
    await backing.expire_proofs()
    assert await commit(world, [put("g", content="ab")]) == []  # the workspace has them
    assert await commit(world, [put("h", content="ab")], device="bob's") == []  # for all its members
    assert await commit(world, [put("i", content="ab")], workspace="alone") == []  # and where else they are
    assert await commit(world, [put("j", content="ac")]) == [("missing_chunks", 0)]  # the lease has ended
    await world.look()
    [refused] = await world.submit(world.request([put("j", content="abcd")(world)]))
    assert isinstance(refused, Refused)
    assert refused.refusal.conflicts[0].hashes == (letter_chunk("c").hash, letter_chunk("d").hash)
    await backing.set_role(world.id("home"), world.id("bob"), None)
    await backing.add_workspace(world.id("bob's own"), world.id("bob"))
    assert await commit(world, [put("k", content="a")], workspace="bob's own", device="bob's") == [
        ("missing_chunks", 0)
    ]


async def a_chunk_has_one_size(backing: Backing) -> None:
    world = await make(backing)
    lies = FullContent(20, (type(letter_chunk("a"))(letter_chunk("a").hash, 11),))
    assert await commit(world, [put("f", content=lambda *_: lies)]) == [("missing_chunks", 0)]


async def earlier_commits_of_a_batch_bring_chunks(backing: Backing) -> None:
    world = await make(backing)
    await backing.set_role(world.id("home"), world.id("dave"), Role.EDITOR)
    outcomes = await world.submit(
        world.request([put("f", content="a")(world)]),
        world.request([put("g", content="a")(world)], device="dave's"),
    )
    assert [codes(outcome) for outcome in outcomes] == [[], []]


async def a_base_that_has_expired_is_gone(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [put("f", content="ab")])
    await backing.forget_versions(world.id("home"), world.id("f"))
    assert await commit(world, [put("f", content=splice(0, 1, "c", "cb"))]) == [("base_gone", 0)]
    assert await commit(world, [put("g", content=copy("f"))]) == [("base_gone", 0)]
    assert await commit(world, [delete("f")]) == []
    assert await commit(world, [move("f")]) == [("base_gone", 0)]


async def followers_are_told_what_they_cannot_have(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [put("f", content="ab"), put("g", content="c")])

    async def kinds(*says: object) -> list[type]:
        assert await commit(world, list(says)) == []  # type: ignore[arg-type]
        return [type(op.content) for op in await told(world) if isinstance(op, Put)]

    assert await kinds(put("f", content=splice(1, 1, "c", "ac"))) == [SplicedContent]
    assert await kinds(put("h", content=copy("f"))) == [CopiedContent]
    assert await kinds(put("i", content=copy("f", 1))) == [FullContent]  # from history
    assert await kinds(put("j", content=copy("g")), put("g", content="d")) == [FullContent, FullContent]
    assert await kinds(put("k", content=copy("g")), delete("g")) == [FullContent]
    assert await kinds(put("g", content=splice(1, 0, "e", "de"))) == [FullContent]  # onto a tombstone
    assert await kinds(put("k", content=copy("k"))) == [CopiedContent]
    await commit(world, [delete("f")])
    assert await kinds(move("f", "back")) == [FullContent]
    await follow(world)


async def deletes_are_told_last(backing: Backing) -> None:
    world = await make(backing)
    await commit(world, [mkdir("d"), put("x", parent="d")])
    assert await commit(world, [delete("d", digest=True), move("x")]) == []
    assert [type(op).__name__ for op in await told(world)] == ["Move", "Delete"]


async def a_staged_body_is_a_commit_like_any(backing: Backing) -> None:
    world = await make(backing)
    submission = world.request([put("f")(world)])
    data = encode(submission.request)
    named = staged(submission, data)
    await backing.stage(submission.device_id, sha256(data).digest(), data)
    [accepted] = await world.submit(named)
    assert isinstance(accepted, Accepted)
    assert await world.tree() == {"f": "a"}
    [again] = await world.submit(named)  # its body is gone by now
    assert isinstance(again, Replayed)
    [again] = await world.submit(submission)  # nor does it matter how it was sent
    assert isinstance(again, Replayed)


async def a_staged_body_that_is_gone_is_asked_for_again(backing: Backing) -> None:
    world = await make(backing)
    submission = world.request([put("f")(world)])
    assert codes((await world.submit(staged(submission, b"never staged")))[0]) == [("base_gone", None)]


async def a_staged_body_is_its_senders_and_the_requests(backing: Backing) -> None:
    world = await make(backing)
    submission = world.request([put("f")(world)])
    data = encode(submission.request)
    await backing.stage(world.id("bob's"), sha256(data).digest(), data)
    assert codes((await world.submit(staged(submission, data)))[0]) == [("base_gone", None)]
    other = world.request([put("f")(world)])
    await backing.stage(other.device_id, sha256(data).digest(), data)
    assert await world.submit(staged(other, data)) == [Dead(reason="foreign_body")]
    await backing.stage(other.device_id, sha256(b"junk").digest(), b"junk")
    another = world.request([put("f")(world)])
    assert await world.submit(staged(another, b"junk")) == [Dead(reason="corrupt_body")]


async def the_cut_off_are_not_answered(backing: Backing) -> None:
    world = await make(backing)
    await backing.revoke(world.id("bob's"))
    outcomes = await world.submit(
        world.request([put("f")(world)], device="bob's"),
        world.request([put("f")(world)], device="nobody's"),
        world.request([put("g")(world)]),
    )
    assert outcomes[:2] == [Dead(reason="revoked_device"), Dead(reason="unknown_device")]
    assert codes(outcomes[2]) == []


async def a_poisoned_request_is_answered_for_good(backing: Backing) -> None:
    world = await make(backing)
    submission, done = world.request([put("f")(world)]), world.request([put("g")(world)], device="bob's")
    await world.submit(done)
    poison = partial(refuse_all, code=ConflictCode.POISONED)
    refused, again = await world.submit(submission, done, decide=poison)
    assert codes(refused) == [("poisoned", None)]
    assert isinstance(again, Replayed)
    assert again.entry
    assert isinstance((await world.submit(submission))[0], Replayed)


async def conflicts_are_told_up_to_a_bound(backing: Backing) -> None:
    world = await make(backing)
    submission = world.request([put(f"f{n}", "..")(world) for n in range(MAX_CONFLICTS + 50)])
    [refused] = await world.submit(submission)
    assert len(codes(refused)) == MAX_CONFLICTS
    assert isinstance(refused, Refused)
    assert len(encode(refused.refusal)) < 100_000


async def missing_chunks_fit_a_message(backing: Backing) -> None:
    world = await make(backing)
    many = tuple(type(letter_chunk("a"))(sha256(b"%d" % n).digest(), 10) for n in range(9_000))
    content = FullContent(20, many)
    await world.look()
    submission = world.request([put(n, content=lambda *_: content)(world) for n in ("f", "g")])
    [refused] = await world.submit(submission)
    assert isinstance(refused, Refused)
    assert codes(refused) == [("missing_chunks", 0), ("missing_chunks", 1)]
    assert len(encode(refused.refusal)) < 100_000


async def a_mount_needs_membership(backing: Backing) -> None:
    world = await make(backing)
    await backing.add_workspace(world.id("bob's own"), world.id("bob"))
    assert await commit(world, [mount("m", "bob's own")], workspace="alone") == [("forbidden", 0)]
    await backing.set_role(world.id("bob's own"), world.id("alice"), Role.VIEWER)
    assert await commit(world, [mount("m", "bob's own")], workspace="alone") == []


Rule = Callable[[Backing], Awaitable[None]]

RULES: list[Rule] = [
    value
    for value in list(globals().values())
    if getattr(value, "__module__", None) == __name__
    and callable(value)
    and value.__name__ not in ("staged", "make", "told", "xattrs_of")
]

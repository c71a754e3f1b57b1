"""The rules of the guard against mass changes. Each plays on any backing."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from uuid import UUID

import pytest

from broker.errors import NotFound
from broker.messages import decode_request
from broker.model import subtree_digest
from metadata.state import NewHold, Replayed, Submission
from tests.commits.suite import commit
from tests.commits.words import Say, chmod, copy, delete, link, mkdir, move, put
from tests.commits.world import Backing, World, codes, letter_chunk

Rule = Callable[[Backing], Awaitable[None]]

HELD = [("held", None)]
LATER = timedelta(hours=2)
FILES = 120


def names(first: int = 0, last: int = FILES) -> list[str]:
    return [f"file {number:03}" for number in range(first, last)]


async def stocked(backing: Backing, files: int = FILES) -> World:
    """A workspace of so many old files."""
    world = await World.make(backing)
    assert await commit(world, [put(name) for name in names(0, files)]) == []
    await backing.pass_time(LATER)
    await world.look()
    return world


async def held(world: World, device: str = "alice's") -> NewHold | None:
    return (await world.backing.list_holds(world.id("home"))).get(world.id(device))


async def sure(world: World, device: str = "alice's") -> NewHold:
    found = await held(world, device)
    assert found is not None
    return found


def deletes(which: Iterable[str]) -> list[Say]:
    return [delete(name) for name in which]


async def who_deletes_more_than_half_is_held(backing: Backing) -> None:
    world = await stocked(backing)
    before = await world.tree()
    submission = world.request([say(world) for say in deletes(names(0, 61))])
    [refused] = await world.submit(submission)
    assert codes(refused) == HELD
    assert await world.tree() == before
    hold = await sure(world)
    assert (hold.deleted, hold.rewritten, hold.to_follow, hold.recent) == (61, 0, 0, 0)
    assert hold.deleted_paths == tuple(names(0, 20))
    assert decode_request(hold.request) == submission.request
    [again] = await world.submit(submission)
    assert isinstance(again, Replayed)
    assert (await sure(world)) == hold


async def half_of_it_is_not_unusual(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 60))) == []
    assert await commit(world, [delete("file 100")]) == HELD


async def a_small_workspace_is_never_held(backing: Backing) -> None:
    world = await stocked(backing, files=50)
    assert await commit(world, deletes(names(0, 50))) == []
    assert await held(world) is None


async def a_fresh_workspace_is_never_held(backing: Backing) -> None:
    world = await World.make(backing)
    assert await commit(world, [put(name) for name in names()]) == []
    assert await commit(world, [put(name, content="b") for name in names()]) == []
    assert await commit(world, deletes(names())) == []


async def what_was_made_by_mistake_may_go_again(backing: Backing) -> None:
    world = await stocked(backing)
    junk = [f"junk {number}" for number in range(500)]
    assert await commit(world, [put(name) for name in junk]) == []
    assert await commit(world, deletes(junk)) == []


async def junk_makes_no_room_for_deletions(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, [put(f"junk {number}") for number in range(500)]) == []
    assert await commit(world, deletes(names(0, 61))) == HELD


async def other_content_counts_as_a_deletion_does(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, [put(name, content="b") for name in names(0, 61)]) == HELD
    hold = await sure(world)
    assert (hold.deleted, hold.rewritten) == (0, 61)
    assert hold.rewritten_paths == tuple(names(0, 20))
    assert (
        await commit(world, [*deletes(names(0, 31)), *(put(n, content="b") for n in names(31, 61))]) == HELD
    )
    hold = await sure(world)
    assert (hold.deleted, hold.rewritten) == (31, 30)


async def a_link_that_says_something_else_counts(backing: Backing) -> None:
    world = await World.make(backing)
    links = [f"link {number}" for number in range(80)]
    assert await commit(world, [link(name) for name in links]) == []
    await backing.pass_time(LATER)
    assert await commit(world, [link(name, "elsewhere") for name in links]) == HELD


async def moves_and_modes_count_for_nothing(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, [mkdir("d"), *(move(name, parent="d") for name in names())]) == []
    assert await commit(world, [chmod(name) for name in names()]) == []
    assert await held(world) is None


async def a_deleted_directory_counts_for_all_that_is_in_it(backing: Backing) -> None:
    world = await World.make(backing)
    inside = [f"inner {number}" for number in range(70)]
    assert await commit(world, [mkdir("d"), *(put(name, parent="d") for name in inside)]) == []
    await backing.pass_time(LATER)
    await world.look()
    known = [(world.id(name), world.nodes[world.id(name)].version) for name in inside]
    whole = delete("d", *inside)
    assert subtree_digest(known)
    assert await commit(world, [whole]) == HELD
    hold = await sure(world)
    assert (hold.deleted, hold.deleted_paths) == (71, ("d",))


async def what_is_moved_out_of_a_deleted_directory_does_not_count(backing: Backing) -> None:
    world = await World.make(backing)
    inside = [f"inner {number}" for number in range(70)]
    assert await commit(world, [mkdir("d"), *(put(name, parent="d") for name in inside)]) == []
    await backing.pass_time(LATER)
    assert await commit(world, [*(move(name) for name in inside), delete("d")]) == []


async def many_small_deletions_add_up(backing: Backing) -> None:
    world = await stocked(backing)
    for number in range(12):
        assert await commit(world, deletes(names(5 * number, 5 * number + 5))) == []
    assert await commit(world, deletes(names(60, 65))) == HELD
    assert (await sure(world)).recent == 60


async def the_window_slides(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 55))) == []
    await backing.pass_time(LATER)
    assert await commit(world, deletes(names(55, 85))) == []


async def a_file_that_is_saved_again_and_again_counts_once(backing: Backing) -> None:
    world = await stocked(backing)
    for number in range(150):
        assert await commit(world, [put("file 000", content="abc"[number % 3])]) == []
    assert await held(world) is None


async def reviving_what_was_deleted_makes_no_room(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 55))) == []
    assert await commit(world, [move(name) for name in names(0, 55)]) == []
    assert await commit(world, deletes(names(60, 66))) == HELD


async def each_device_is_measured_by_itself(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 55))) == []
    assert await commit(world, deletes(names(55, 60)), device="bob's") == []
    assert await commit(world, deletes(names(60, 70))) == HELD
    assert await commit(world, [put("bob's file")], device="bob's") == []
    assert await held(world, "bob's") is None


async def a_batch_is_measured_as_a_whole(backing: Backing) -> None:
    world = await stocked(backing)
    halves = [deletes(names(0, 40)), deletes(names(40, 70))]
    outcomes = await world.submit(*(world.request([say(world) for say in says]) for says in halves))
    assert [codes(outcome) for outcome in outcomes] == [[], HELD]
    assert (await sure(world)).recent == 40


async def what_is_to_follow_is_held_with_the_first_part(backing: Backing) -> None:
    world = await stocked(backing)
    first = world.request([say(world) for say in deletes(names(0, 20))], to_follow=50)
    assert codes((await world.submit(first))[0]) == HELD
    hold = await sure(world)
    assert (hold.deleted, hold.to_follow) == (20, 50)
    await backing.accept_hold(world.id("home"), hold.hold_id)
    parts = [(names(0, 20), 50), (names(20, 50), 20), (names(50, 70), 0)]
    for part, more in parts:
        again = world.request([say(world) for say in deletes(part)], to_follow=more)
        assert codes((await world.submit(again))[0]) == []
    assert await held(world) is None


async def a_held_device_has_nothing_else_taken(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 61))) == HELD
    first = await sure(world)
    assert await commit(world, [put("new")]) == HELD
    second = await sure(world)
    assert second.hold_id != first.hold_id
    assert second.deleted == 0
    # Another incarnation of the same device is held too; another workspace of it is not.
    other = world.request([put("new")(world)], incarnation="another")
    assert codes((await world.submit(other))[0]) == HELD
    assert await commit(world, [put("x")], workspace="alone") == []


async def the_same_again_keeps_its_name(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 61))) == HELD
    first = await sure(world)
    assert await commit(world, [put("bob's")], device="bob's") == []
    assert await commit(world, deletes(names(0, 61))) == HELD
    assert await sure(world) == first
    await backing.accept_hold(world.id("home"), first.hold_id)


async def what_is_accepted_may_be_done_once(backing: Backing) -> None:
    world = await stocked(backing, files=400)
    assert await commit(world, deletes(names(0, 300))) == HELD
    hold = await sure(world)
    await backing.accept_hold(world.id("home"), hold.hold_id)
    await backing.accept_hold(world.id("home"), hold.hold_id)
    assert await commit(world, [put("harmless")]) == []
    assert await commit(world, deletes(names(0, 300))) == []
    assert await held(world) is None
    assert await commit(world, deletes(names(300, 400))) == HELD


async def more_than_was_accepted_is_held_again(backing: Backing) -> None:
    world = await stocked(backing, files=400)
    assert await commit(world, deletes(names(0, 250))) == HELD
    await backing.accept_hold(world.id("home"), (await sure(world)).hold_id)
    assert await commit(world, deletes(names(0, 400))) == HELD
    assert (await sure(world)).deleted == 400
    assert await commit(world, deletes(names(0, 250))) == HELD


async def what_is_accepted_expires(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names())) == HELD
    await backing.accept_hold(world.id("home"), (await sure(world)).hold_id)
    await backing.pass_time(timedelta(hours=25))
    assert await held(world) is None
    assert await commit(world, deletes(names())) == HELD


async def accepting_begins_the_count_anew(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 60))) == []
    assert await commit(world, deletes(names(60, 65))) == HELD
    await backing.accept_hold(world.id("home"), (await sure(world)).hold_id)
    assert await commit(world, deletes(names(60, 65))) == []
    assert await commit(world, deletes(names(65, 70))) == []


async def what_was_replaced_cannot_be_accepted(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 61))) == HELD
    first = await sure(world)
    assert await commit(world, deletes(names(0, 120))) == HELD
    with pytest.raises(NotFound):
        await backing.accept_hold(world.id("home"), first.hold_id)
    assert await commit(world, deletes(names(0, 61))) == HELD


async def what_is_undone_waits_until_its_device_has_done_so(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names(0, 61))) == HELD
    hold = await sure(world)
    await backing.release_hold(hold.hold_id, world.id("alice's"))  # nobody has said so: it stays
    await backing.undo_hold(world.id("home"), hold.hold_id)
    assert await commit(world, deletes(names(0, 120))) == HELD
    assert await sure(world) == hold  # it is still that one which is to be taken back
    with pytest.raises(NotFound):
        await backing.accept_hold(world.id("home"), hold.hold_id)
    await backing.release_hold(hold.hold_id, world.id("bob's"))
    assert await sure(world) == hold
    await backing.release_hold(hold.hold_id, world.id("alice's"))
    assert await held(world) is None
    assert await commit(world, [put("new")]) == []
    assert await commit(world, deletes(names(0, 61))) == HELD
    assert (await sure(world)).hold_id != hold.hold_id


async def an_accepted_hold_can_be_undone_while_nothing_was_done(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, deletes(names())) == HELD
    hold = await sure(world)
    await backing.accept_hold(world.id("home"), hold.hold_id)
    await backing.undo_hold(world.id("home"), hold.hold_id)
    assert await commit(world, deletes(names())) == HELD


async def a_held_commits_chunks_are_pinned(backing: Backing) -> None:
    world = await stocked(backing)
    submission = world.request([put(name, content="xyz")(world) for name in names()])
    assert codes((await world.submit(submission))[0]) == HELD
    assert (await sure(world)).chunks == {letter_chunk(letter).hash for letter in "xyz"}
    await backing.expire_proofs()
    await backing.accept_hold(world.id("home"), (await sure(world)).hold_id)
    assert await commit(world, [put("later", content="w")]) == [("missing_chunks", 0)]
    assert await commit(world, [put(name, content="xyz") for name in names()]) == []


async def others_may_not_use_what_a_held_commit_pins(backing: Backing) -> None:
    world = await stocked(backing)
    assert await commit(world, [put(name, content="xyz") for name in names()]) == HELD
    await backing.expire_proofs()
    assert await commit(world, [put("bob's", content="x")], device="bob's") == [("missing_chunks", 0)]


async def a_conflict_is_told_before_it_is_held(backing: Backing) -> None:
    world = await stocked(backing)
    stale = [delete(name, base=77) for name in names()]
    assert {code for code, _ in await commit(world, stale)} == {"stale_version"}
    assert await held(world) is None


async def a_copy_of_itself_is_no_way_around(backing: Backing) -> None:
    world = await stocked(backing)
    await commit(world, [put("other", content="b")])
    assert await commit(world, [put(name, content=copy("other")) for name in names()]) == HELD


async def two_devices_are_held_apart(backing: Backing) -> None:
    world = await stocked(backing)
    requests: list[Submission] = [
        world.request([say(world) for say in deletes(names(0, 61))], device=device)
        for device in ("alice's", "bob's")
    ]
    outcomes = await world.submit(*requests)
    assert [codes(outcome) for outcome in outcomes] == [HELD, HELD]
    ids: set[UUID] = {(await sure(world, device)).hold_id for device in ("alice's", "bob's")}
    assert len(ids) == 2


GUARDING: list[Rule] = [
    value
    for value in list(globals().values())
    if getattr(value, "__module__", None) == __name__
    and callable(value)
    and value.__name__ not in ("names", "stocked", "held", "sure", "deletes")
]

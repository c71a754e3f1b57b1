"""The guard against a client that asks for whatever it likes: real workers, on real servers."""

from datetime import timedelta

from broker.messages import CommitRefused, decode_entry
from broker.model import ConflictCode, Delete
from metadata.registry import Registry
from tests.commits.words import delete, put
from tests.commits.world import World, letter_chunk
from tests.integration.sync_workers.conftest import Stage
from tests.integration.sync_workers.test_process import people, queue

FILES = 150


async def stocked(stage: Stage) -> World:
    """A workspace of 150 files, which were made two hours ago."""
    world = await people(stage)
    await world.submit(world.request([put(name)(world) for name in names()]))
    await stage.backing.pass_time(timedelta(hours=2))
    await world.look()
    return world


def names(first: int = 0, last: int = FILES) -> list[str]:
    return [f"file {number}" for number in range(first, last)]


async def gone(world: World) -> int:
    """How many deletions the journal has told everybody."""
    journal = await world.backing.list_journal(world.id("home"))
    return sum(
        isinstance(operation, Delete) for entry, _ in journal for operation in decode_entry(entry).operations
    )


async def test_a_client_that_only_deletes_is_held_by_whichever_worker(stage: Stage) -> None:
    world = await stocked(stage)
    alice, bob = queue(world, "alice"), queue(world, "bob")
    requests = [
        world.request([delete(name)(world) for name in names(at, at + 5)], incarnation=f"of {at}")
        for at in range(0, FILES, 5)
    ]
    limits = {"HUTCH_WORKERS_PREFETCH": "4"}
    async with (
        stage.sending() as send,
        stage.listening(alice, bob),
        stage.worker("one", **limits),
        stage.worker("two", **limits),
    ):
        for request in requests:
            await send(request)
        got = stage.inboxes.got

        def refusals() -> list[CommitRefused]:
            return [each for each in got.get(alice, []) if isinstance(each, CommitRefused)]

        await stage.inboxes.wait_for(lambda: len(refusals()) == (FILES - 75) // 5)
    assert {conflict.code for each in refusals() for conflict in each.conflicts} == {ConflictCode.HELD}
    # Half of them and no more, whatever the order in which two workers took them.
    assert await gone(world) == 75
    [(device_id, hold)] = (await stage.backing.list_holds(world.id("home"))).items()
    assert device_id == world.id("alice's")
    assert (hold.deleted, hold.recent) == (5, 75)


async def test_what_is_held_keeps_its_content_until_it_is_accepted(stage: Stage) -> None:
    world = await stocked(stage)
    alice = queue(world, "alice")
    rewriting = world.request([put(name, content="xyz")(world) for name in names()])
    registry = Registry(stage.backing.pool)
    async with stage.sending() as send, stage.listening(alice), stage.worker("one"):
        got = stage.inboxes.got
        await send(rewriting)
        await stage.inboxes.wait_for(lambda: len(got.get(alice, [])) == 1)
        assert await gone(world) == 0
        # The leases end and the house is swept: the chunks are pinned all the same.
        await stage.backing.expire_proofs()
        await registry.sweep()
        assert await stage.backing.pool.fetchval("SELECT count(*) FROM chunk_proofs") == 0
        held = (await stage.backing.list_holds(world.id("home")))[world.id("alice's")]
        assert held.chunks == {letter_chunk(letter).hash for letter in "xyz"}
        await registry.accept_hold(world.id("home"), held.hold_id, world.id("alice"))
        await send(world.request([put(name, content="xyz")(world) for name in names()]))
        await stage.inboxes.wait_for(lambda: len(got[alice]) == 2)
    assert set((await world.tree()).values()) == {"xyz"}
    assert await stage.backing.list_holds(world.id("home")) == {}
    pinned = await stage.backing.pool.fetchval("SELECT count(*) FROM hold_chunks")
    assert pinned == 0


async def test_an_operator_sets_the_measure(stage: Stage) -> None:
    world = await stocked(stage)
    alice = queue(world, "alice")
    measure = {"HUTCH_WORKERS_GUARD_MIN_NODES": "3", "HUTCH_WORKERS_GUARD_SHARE_PERCENT": "2"}
    async with stage.sending() as send, stage.listening(alice):
        got = stage.inboxes.got
        async with stage.worker("strict", **measure):
            await send(world.request([delete(name)(world) for name in names(0, 4)]))
            await stage.inboxes.wait_for(lambda: len(got.get(alice, [])) == 1)
        assert isinstance(got[alice][0], CommitRefused)
        await stage.backing.pool.execute("DELETE FROM holds")
        async with stage.worker("lax", HUTCH_WORKERS_GUARD_SHARE_PERCENT="100"):
            await send(world.request([delete(name)(world) for name in names()]))
            await stage.inboxes.wait_for(lambda: len(got[alice]) == 2)
    assert await world.tree() == {}

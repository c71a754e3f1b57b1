"""The loop, on the in-memory twins of the broker and the store."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from broker.delivery import REASON_HEADER
from broker.errors import Forbidden, Unavailable
from broker.memory import MemoryBroker
from broker.messages import ChangeNotice, CommitAccepted, CommitRefused, decode_inbox, encode
from broker.topology import (
    DEAD,
    DELIVERY_LIMIT,
    REQUESTS,
    device_binding,
    device_permissions,
    device_queue,
)
from metadata.memory import MemoryStore
from sync_workers.metrics import Metrics
from sync_workers.patience import next_delay_s
from sync_workers.worker import Worker
from tests.commits.words import mkdir, put
from tests.commits.world import World

PREFETCH = 8


class FaultyStore:
    """A store that is away for some time, loses answers, or breaks on some node."""

    def __init__(self, store):
        self.store = store
        self.away = False
        self.lose_answers = 0
        self.poison = None
        self.batches = []

    async def commit_batch(self, submissions, decide):
        self.batches.append(len(submissions))
        if self.away:
            raise Unavailable("PostgreSQL cannot serve now")
        operations = [op for s in submissions for op in s.request.operations]
        if any(op.node_id == self.poison for op in operations):
            raise ValueError("a statement broke")
        result = await self.store.commit_batch(submissions, decide)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("the connection was lost at the commit")
        return result


class Stage:
    """A worker between a broker and a store, and the cast's devices around it."""

    def __init__(self, broker, world, store):
        self.broker = broker
        self.world = world
        self.store = store
        self.metrics = Metrics()
        self.stop = asyncio.Event()
        self.worker = self.make_worker()

    def make_worker(self):
        return Worker(
            consumer=self.broker.consumer(REQUESTS, prefetch=PREFETCH),
            publisher=self.broker.publisher(),
            store=self.store,
            metrics=self.metrics,
            prefetch=PREFETCH,
            relay_user="relay",
        )

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.worker.run(self.stop), name="worker")
            yield
            self.stop.set()

    def queue(self, device):
        return f"device.{self.world.id(device.removesuffix(chr(39) + 's')).hex}"

    async def send(self, submission, **publisher):
        user = str(submission.device_id)
        async with self.broker.publisher(user=user, user_id=user) as out:
            await out.publish(REQUESTS, REQUESTS, encode(submission.request))

    async def ask(self, *says, device="alice's", **values):
        submission = self.world.request([say(self.world) for say in says], device=device, **values)
        await self.send(submission)
        return submission

    def got(self, device):
        return [decode_inbox(stored.body) for stored in self.broker.messages(self.queue(device))]

    def dead(self):
        return [stored.headers.get(REASON_HEADER) for stored in self.broker.messages(DEAD)]

    def idle(self):
        queue = self.broker._queues[REQUESTS]
        return not queue.ready and not any(s.in_hand for s in queue.consumers)


async def wait_until(condition, deadline_s=20):
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - the twins have no event for it
            await asyncio.sleep(0.001)


@pytest.fixture
async def stage():
    broker = MemoryBroker()
    broker.ensure_topology()
    store = FaultyStore(MemoryStore())
    world = await World.make(store.store)
    stage = Stage(broker, world, store)
    for user in ("alice", "bob", "carol"):
        queue = stage.queue(f"{user}'s")
        broker.ensure_queue(device_queue(queue))
        broker.bind(device_binding(queue, world.id("home")))
        broker.put_user(str(world.id(f"{user}'s")), device_permissions(queue))
    broker.put_user("relay", {"configure": "", "write": ".*", "read": ".*"})
    await world.look()
    return stage


async def test_a_commit_is_told_to_all_and_acknowledged(stage):
    await stage.ask(put("f"))
    async with stage.running():
        await wait_until(stage.idle)
    for device in ("alice's", "bob's", "carol's"):
        [notice] = stage.got(device)
        assert isinstance(notice, ChangeNotice)
        assert len(notice.entries) == 1


async def test_what_waits_is_one_batch_and_one_notice(stage):
    for number in range(PREFETCH):
        await stage.ask(put(f"f{number}"))
    async with stage.running():
        await wait_until(stage.idle)
    assert stage.store.batches == [PREFETCH]
    [notice] = stage.got("bob's")
    assert (notice.head.seq, len(notice.entries)) == (PREFETCH, PREFETCH)


async def test_a_refusal_is_told_to_its_author_alone(stage):
    await stage.ask(put("f", parent="nowhere"), device="bob's")
    async with stage.running():
        await wait_until(stage.idle)
    assert [type(message) for message in stage.got("bob's")] == [CommitRefused]
    assert stage.got("alice's") == []


async def test_a_request_sent_twice_is_done_once_and_answered_twice(stage):
    submission = await stage.ask(put("f"))
    await stage.send(submission)
    async with stage.running():
        await wait_until(stage.idle)
    assert [type(message) for message in stage.got("alice's")] == [ChangeNotice, CommitAccepted]
    assert [type(message) for message in stage.got("bob's")] == [ChangeNotice]


async def test_strange_messages_are_dead_lettered_and_the_worker_lives_on(stage):
    async with stage.broker.publisher() as out:
        await out.publish(REQUESTS, REQUESTS, encode(stage.world.request([put("f")(stage.world)]).request))
    user = str(stage.world.id("alice's"))
    async with stage.broker.publisher(user=user, user_id=user) as out:
        await out.publish(REQUESTS, REQUESTS, b"junk")
    await stage.world.backing.revoke(stage.world.id("carol's"))
    await stage.ask(put("g"), device="carol's")
    await stage.ask(put("h"))
    async with stage.running():
        await wait_until(stage.idle)
    assert sorted(stage.dead()) == ["corrupt", "missing_user_id", "revoked_device"]
    assert await stage.world.tree() == {"h": "a"}


async def test_the_relay_speaks_for_devices_and_devices_do_not(stage):
    request = stage.world.request([put("f")(stage.world)], device="bob's").request
    body = encode(replace(request, on_behalf_of=stage.world.id("bob's")))
    for user in ("relay", str(stage.world.id("alice's"))):
        async with stage.broker.publisher(user=user, user_id=user) as out:
            await out.publish(REQUESTS, REQUESTS, body)
    async with stage.running():
        await wait_until(stage.idle)
    assert stage.dead() == ["foreign_user_id"]
    assert await stage.world.tree() == {"f": "a"}


async def test_an_outage_of_the_database_holds_what_is_in_hand(stage):
    stage.store.away = True
    await stage.ask(put("f"))
    async with stage.running():
        await wait_until(lambda: len(stage.store.batches) >= 3)
        assert not stage.worker.ready
        assert stage.broker.messages(REQUESTS) == []
        stage.store.away = False
        await wait_until(stage.idle)
        assert stage.worker.ready
    assert len(stage.got("bob's")) == 1
    assert stage.dead() == []


async def test_an_answer_lost_at_the_commit_is_found_and_told(stage):
    stage.store.lose_answers = 1
    await stage.ask(put("f"))
    async with stage.running():
        await wait_until(stage.idle)
    assert [type(message) for message in stage.got("bob's")] == [ChangeNotice]
    assert [type(message) for message in stage.got("alice's")] == [ChangeNotice, CommitAccepted]
    assert len(await stage.world.backing.list_journal(stage.world.id("home"))) == 1


async def test_an_alarm_of_the_broker_holds_the_acknowledgement(stage):
    await stage.ask(put("f"))
    stage.broker.set_alarm(True)
    async with stage.running():
        await wait_until(lambda: stage.worker._patience.holding)
        assert not stage.idle()
        assert len(await stage.world.backing.list_journal(stage.world.id("home"))) == 1
        stage.broker.set_alarm(False)
        await wait_until(stage.idle)
    assert len(stage.got("bob's")) == 1


async def test_one_that_breaks_fails_no_neighbour_and_is_poisoned_in_the_end(stage):
    stage.store.poison = stage.world.id("bad")
    for name in ("f", "g", "bad", "h"):
        await stage.ask(put(name), incarnation=f"of {name}")
    async with stage.running():
        await wait_until(stage.idle)
    assert await stage.world.tree() == {"f": "a", "g": "a", "h": "a"}
    assert stage.dead() == ["poisoned"]
    [refusal] = [message for message in stage.got("alice's") if isinstance(message, CommitRefused)]
    assert [conflict.code.value for conflict in refusal.conflicts] == ["poisoned"]
    assert stage.store.batches.count(1) >= DELIVERY_LIMIT


async def test_a_redelivered_request_is_alone(stage):
    for name in ("f", "g", "h"):
        await stage.ask(put(name))
    held = asyncio.Event()
    consumer = stage.broker.consumer(REQUESTS, prefetch=PREFETCH)

    async def take(delivery):
        if delivery.body.find(b"g") >= 0:
            held.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(consumer.run(take))
        await held.wait()
        task.cancel()
    async with stage.running():
        await wait_until(stage.idle)
    assert stage.store.batches == [1, 1, 1]


async def test_a_stop_finishes_what_is_in_hand(stage):
    for number in range(PREFETCH):
        await stage.ask(mkdir(f"d{number}"))
    async with stage.running():
        await wait_until(lambda: not stage.broker.messages(REQUESTS))
        stage.stop.set()
    assert len(await stage.world.tree()) == PREFETCH
    assert stage.broker.messages(REQUESTS) == []


async def test_a_stop_during_an_outage_gives_back_what_is_in_hand(stage):
    stage.store.away = True
    await stage.ask(put("f"))
    async with stage.running():
        await wait_until(lambda: stage.store.batches)
    assert len(stage.broker.messages(REQUESTS)) == 1


async def test_a_queue_that_is_gone_stops_nothing(stage):
    for user in ("alice", "bob", "carol"):
        stage.broker.delete_queue(stage.queue(f"{user}'s"))
    await stage.ask(put("f"))
    await stage.ask(put("f"))
    async with stage.running():
        await wait_until(stage.idle)
    assert await stage.world.tree() == {"f": "a"}


async def test_a_worker_that_may_not_consume_ends(stage):
    stage.broker.put_user("nobody", {"configure": "", "write": "", "read": "^$"})
    worker = Worker(
        consumer=stage.broker.consumer(REQUESTS, prefetch=PREFETCH, user="nobody"),
        publisher=stage.broker.publisher(),
        store=stage.store,
        metrics=stage.metrics,
        prefetch=PREFETCH,
        relay_user="relay",
    )
    with pytest.raises(Forbidden):
        await worker.run(asyncio.Event())


async def test_the_metrics_count(stage):
    await stage.ask(put("f"))
    await stage.ask(put("f"))
    async with stage.running():
        await wait_until(stage.idle)
    text = stage.metrics.render().decode()
    assert 'hutch_workers_commits_total{outcome="accepted"} 1.0' in text
    assert 'hutch_workers_conflicts_total{code="stale_version"} 1.0' in text


def test_delays_grow_to_a_bound():
    delays = [next_delay_s(attempt) for attempt in range(1, 100)]
    assert delays[0] == 0.1
    assert delays == sorted(delays)
    assert delays[-1] == 5.0

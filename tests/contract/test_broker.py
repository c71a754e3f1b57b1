"""What the service leans on in its broker. The same for RabbitMQ and for its in-memory twin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from broker import topology
from broker.connection import Delivery, Publishing, dead_letter
from broker.delivery import DETAIL_HEADER, ORIGIN_HEADER, REASON_HEADER
from broker.errors import Blocked, Forbidden, NotFound, Refused, Unavailable
from broker.management import Management
from broker.messages import MAX_MESSAGE_SIZE_BYTES
from broker.topology import Binding, Exchange, Queue
from tests.contract.brokers import PATIENCE_S, Broker, Inbox, Real, Twin, consuming

CLASSIC = Queue(name="plain", arguments={"x-queue-type": "classic"})
QUORUM = Queue(name="counted", arguments={"x-queue-type": "quorum"})
NOTHING = {"configure": "^$", "write": "^$", "read": "^$"}


@pytest.fixture(params=["twin", "rabbitmq"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """A fresh broker."""
    if request.param == "twin":
        yield Twin()
        return
    vhost = request.getfixturevalue("rabbitmq_server").create_vhost()
    async with Management(vhost.management_url, vhost.name) as management:
        yield Real(management, vhost.amqp_url)


@pytest.fixture
async def user(broker: Broker) -> str:
    """A user who may do everything."""
    return await broker.put_user()


async def test_what_was_published_is_delivered_as_it_was(broker: Broker, user: str):
    await broker.put(CLASSIC)
    async with (
        broker.publisher(user, user_id=user) as publisher,
        consuming(broker.consumer(user, "plain")) as inbox,
    ):
        await publisher.publish("", "plain", b"\x00body", headers={"x-hutch-note": "so"})
        delivery = await inbox.next()
        await delivery.ack()
    assert (delivery.body, delivery.user_id, delivery.headers["x-hutch-note"]) == (b"\x00body", user, "so")
    assert (delivery.delivery_count, delivery.redelivered) == (0, False)


async def test_many_in_flight_all_arrive_in_the_order_of_one_publisher(broker: Broker, user: str):
    await broker.put(QUORUM)
    bodies = [b"%d" % number for number in range(500)]
    async with broker.publisher(user) as publisher, consuming(broker.consumer(user, "counted")) as inbox:
        await asyncio.gather(*(publisher.publish("", "counted", body) for body in bodies))
        assert await inbox.take(len(bodies)) == bodies


async def test_a_direct_exchange_brings_a_message_to_each_bound_queue(broker: Broker, user: str):
    queues = [Queue(name=name, arguments=CLASSIC.arguments) for name in ("a", "b", "c")]
    bindings = [Binding(exchange="news", queue=name, routing_key="k") for name in ("a", "b")]
    await broker.put(Exchange(name="news"), *queues, *bindings)
    async with (
        broker.publisher(user) as publisher,
        consuming(broker.consumer(user, "a")) as a,
        consuming(broker.consumer(user, "b")) as b,
        consuming(broker.consumer(user, "c")) as c,
    ):
        await publisher.publish("news", "k", b"for a and b")
        await publisher.publish("", "c", b"for c")
        assert [await a.take(1), await b.take(1), await c.take(1)] == [[b"for a and b"]] * 2 + [[b"for c"]]


async def test_what_is_not_settled_comes_again_and_is_counted(broker: Broker, user: str):
    await broker.put(QUORUM)
    async with broker.publisher(user) as publisher:
        await publisher.publish("", "counted", b"x")
    async with consuming(broker.consumer(user, "counted")) as inbox:
        first = await inbox.next()
    await first.ack()  # its consumer is gone: quietly nothing
    async with consuming(broker.consumer(user, "counted")) as inbox:
        second = await inbox.next()
        await second.ack()
    assert (second.body, second.redelivered, second.delivery_count) == (b"x", True, 1)


async def test_a_classic_queue_does_not_count(broker: Broker, user: str):
    await broker.put(CLASSIC)
    async with broker.publisher(user) as publisher, consuming(broker.consumer(user, "plain")) as inbox:
        await publisher.publish("", "plain", b"x")
        await (await inbox.next()).reject(requeue=True)
        again = await inbox.next()
        await again.ack()
    assert (again.redelivered, again.delivery_count) == (True, 0)


async def test_a_count_that_the_publisher_invents_is_not_believed(broker: Broker, user: str):
    await broker.put(QUORUM)
    async with broker.publisher(user) as publisher, consuming(broker.consumer(user, "counted")) as inbox:
        await publisher.publish("", "counted", b"x", headers={"x-delivery-count": 7})
        first = await inbox.next()
        await first.reject(requeue=True)
        second = await inbox.next()
        await second.ack()
    assert (first.delivery_count, second.delivery_count) == (0, 1)


async def test_settling_twice_is_settling_once(broker: Broker, user: str):
    await broker.put(CLASSIC)
    async with broker.publisher(user) as publisher, consuming(broker.consumer(user, "plain")) as inbox:
        await publisher.publish("", "plain", b"one")
        delivery = await inbox.next()
        await delivery.ack()
        await delivery.reject(requeue=True)
        await publisher.publish("", "plain", b"two")
        assert await inbox.take(1) == [b"two"]


async def test_no_more_than_the_prefetch_is_in_hand(broker: Broker, user: str):
    await broker.put(CLASSIC)
    async with (
        broker.publisher(user) as publisher,
        consuming(broker.consumer(user, "plain", prefetch=2)) as full,
    ):
        for body in (b"1", b"2", b"3"):
            await publisher.publish("", "plain", body)
        held = [await full.next(), await full.next()]
        async with consuming(broker.consumer(user, "plain")) as other:
            assert await other.take(1) == [b"3"]  # it was in nobody's hand
        await held[0].ack()
        await publisher.publish("", "plain", b"4")
        assert (await full.next()).body == b"4"


async def test_a_handler_that_waits_has_one_delivery_at_a_time(broker: Broker, user: str):
    await broker.put(CLASSIC)
    at_once, seen, enough = 0, [], asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        nonlocal at_once
        at_once += 1
        await delivery.ack()
        seen.append((delivery.body, at_once))
        at_once -= 1
        if len(seen) == 3:
            enough.set()

    async with broker.publisher(user) as publisher:
        for body in (b"1", b"2", b"3"):
            await publisher.publish("", "plain", body)
    task = asyncio.create_task(broker.consumer(user, "plain").run(handle))
    async with asyncio.timeout(PATIENCE_S):
        await enough.wait()
    task.cancel()
    await asyncio.wait([task])
    assert seen == [(b"1", 1), (b"2", 1), (b"3", 1)]


async def test_what_a_handler_raises_ends_the_run_and_the_message_stays(broker: Broker, user: str):
    await broker.put(QUORUM)

    def fail(_: Delivery) -> None:
        raise Blocked("of the handler, not of the broker")

    async with broker.publisher(user) as publisher:
        await publisher.publish("", "counted", b"x")
    consumer = broker.consumer(user, "counted")
    with pytest.raises(Blocked, match="of the handler"):
        async with asyncio.timeout(PATIENCE_S):
            await consumer.run(fail)
    assert not consumer.connected
    async with consuming(broker.consumer(user, "counted")) as inbox:
        assert await inbox.take(1) == [b"x"]


async def test_a_message_that_comes_back_too_often_is_dead_with_the_reason(broker: Broker, user: str):
    await broker.put(
        Exchange(name="dead"),
        Queue(name="dead", arguments={"x-queue-type": "quorum"}),
        Binding(exchange="dead", queue="dead", routing_key="dead"),
        Queue(
            name="limited",
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": 2,
                "x-dead-letter-exchange": "dead",
                "x-dead-letter-routing-key": "dead",
            },
        ),
    )
    async with (
        broker.publisher(user) as publisher,
        consuming(broker.consumer(user, "limited")) as inbox,
        consuming(broker.consumer(user, "dead")) as graves,
    ):
        await publisher.publish("", "limited", b"poison")
        counts = []
        for _ in range(3):
            delivery = await inbox.next()
            counts.append(delivery.delivery_count)
            await delivery.reject(requeue=True)
        grave = await graves.next()
        await grave.ack()
    assert counts == [0, 1, 2]
    assert grave.body == b"poison"
    assert grave.headers["x-first-death-reason"] == "delivery_limit"
    assert _newest_death(grave)["queue"] == "limited"


def _newest_death(delivery: Delivery) -> dict[str, object]:
    deaths = delivery.headers["x-death"]
    assert isinstance(deaths, list)
    assert isinstance(deaths[0], dict)
    return deaths[0]


async def test_a_rejected_message_is_dead(broker: Broker, user: str):
    dead = {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": "k"}
    await broker.put(
        Exchange(name="dead"),
        QUORUM,
        Binding(exchange="dead", queue="counted", routing_key="k"),
        Queue(name="source", arguments={"x-queue-type": "classic", **dead}),
    )
    async with (
        broker.publisher(user) as publisher,
        consuming(broker.consumer(user, "source")) as inbox,
        consuming(broker.consumer(user, "counted")) as graves,
    ):
        await publisher.publish("", "source", b"x")
        await (await inbox.next()).reject()
        grave = await graves.next()
        await grave.ack()
    assert _newest_death(grave)["reason"] == "rejected"


async def test_a_malformed_message_is_kept_with_its_reason(broker: Broker, user: str):
    await broker.put(CLASSIC, *topology.EXCHANGES, *topology.QUEUES, *topology.BINDINGS)
    async with (
        broker.publisher(user, user_id=user) as publisher,
        consuming(broker.consumer(user, "plain")) as inbox,
        consuming(broker.consumer(user, topology.DEAD)) as graves,
    ):
        await publisher.publish("", "plain", b"\xc1")
        await dead_letter(publisher, await inbox.next(), "corrupt", "not a message")
        grave = await graves.next()
        await grave.ack()
        await publisher.publish("", "plain", b"next")
        assert await inbox.take(1) == [b"next"]
    told = [grave.headers[name] for name in (REASON_HEADER, DETAIL_HEADER, ORIGIN_HEADER)]
    assert (grave.body, told) == (b"\xc1", ["corrupt", "not a message", user])


async def test_drop_head_lets_the_oldest_go(broker: Broker, user: str):
    arguments: dict[str, str | int] = {
        "x-queue-type": "classic",
        "x-overflow": "drop-head",
        "x-max-length": 2,
    }
    await broker.put(Queue(name="short", arguments=arguments))
    async with broker.publisher(user) as publisher:
        for body in (b"1", b"2", b"3"):
            await publisher.publish("", "short", body)
    async with consuming(broker.consumer(user, "short")) as inbox:
        assert await inbox.take(2) == [b"2", b"3"]


async def test_a_full_queue_blocks_and_the_rest_of_a_fan_out_has_the_message(broker: Broker, user: str):
    arguments: dict[str, str | int] = {
        "x-queue-type": "classic",
        "x-overflow": "reject-publish",
        "x-max-length": 1,
    }
    await broker.put(Exchange(name="news"), CLASSIC, Queue(name="full", arguments=arguments))
    await broker.put(*(Binding(exchange="news", queue=name, routing_key="k") for name in ("full", "plain")))
    async with broker.publisher(user) as publisher:
        await publisher.publish("news", "k", b"1")
        with pytest.raises(Blocked):
            await publisher.publish("news", "k", b"2")
        async with consuming(broker.consumer(user, "full")) as inbox:
            await inbox.take(1)
        await publisher.publish("news", "k", b"3")
    async with consuming(broker.consumer(user, "plain")) as inbox:
        assert await inbox.take(3) == [b"1", b"2", b"3"]


async def test_a_quorum_queue_that_is_full_blocks(broker: Broker, user: str):
    arguments: dict[str, str | int] = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-max-length": 3,
    }
    await broker.put(Queue(name="bounded", arguments=arguments))
    async with broker.publisher(user) as publisher:
        with pytest.raises(Blocked):
            await _fill(publisher, "bounded")


async def _fill(publisher: Publishing, queue: str) -> None:
    for _ in range(200):  # a quorum queue notices its limit a little late
        await publisher.publish("", queue, b"x")


async def test_what_no_queue_takes_is_not_lost_in_silence(broker: Broker, user: str):
    await broker.put(Exchange(name="news"), CLASSIC)
    async with broker.publisher(user) as publisher:
        with pytest.raises(NotFound) as unrouted:
            await publisher.publish("news", "nobody", b"x")
        with pytest.raises(NotFound) as unknown:
            await publisher.publish("no such exchange", "k", b"x")
        await publisher.publish("", "plain", b"the next")
    assert (unrouted.value.code, unknown.value.code) == ("no_route", "not_found")


async def test_the_largest_message_passes_and_a_larger_one_is_not_even_sent(broker: Broker, user: str):
    await broker.put(CLASSIC)
    async with broker.publisher(user) as publisher, consuming(broker.consumer(user, "plain")) as inbox:
        with pytest.raises(Refused) as refused:
            await publisher.publish("", "plain", bytes(MAX_MESSAGE_SIZE_BYTES + 1))
        await publisher.publish("", "plain", bytes(MAX_MESSAGE_SIZE_BYTES))
        assert [len(body) for body in await inbox.take(1)] == [MAX_MESSAGE_SIZE_BYTES]
    assert refused.value.code == "too_large"


async def test_nobody_publishes_in_anothers_name_and_the_next_publish_works(broker: Broker, user: str):
    await broker.put(CLASSIC)
    another = await broker.put_user()
    async with (
        broker.publisher(user, user_id=another) as forger,
        broker.publisher(user, user_id=user) as honest,
        consuming(broker.consumer(user, "plain")) as inbox,
    ):
        with pytest.raises(Forbidden):
            await forger.publish("", "plain", b"forged")
        await honest.publish("", "plain", b"honest")
        assert await inbox.take(1) == [b"honest"]


async def test_one_bad_publish_fails_alone_among_many_in_flight(broker: Broker, user: str):
    await broker.put(CLASSIC)
    bodies = [b"%d" % number for number in range(100)]
    async with broker.publisher(user) as publisher, consuming(broker.consumer(user, "plain")) as inbox:
        outcomes = await asyncio.gather(
            *(publisher.publish("", "plain", body) for body in bodies[:50]),
            publisher.publish("no such exchange", "k", b"bad"),
            *(publisher.publish("", "plain", body) for body in bodies[50:]),
            return_exceptions=True,
        )
        assert [outcome for outcome in outcomes if outcome is not None] == [outcomes[50]]
        assert isinstance(outcomes[50], NotFound)
        # What was in flight beside it may come twice, and all of it comes.
        arrived: set[bytes] = set()
        while arrived != set(bodies):
            arrived.update(await inbox.take(1))


async def test_a_user_without_the_right_neither_writes_nor_reads(broker: Broker):
    await broker.put(Exchange(name="news"), CLASSIC, Binding(exchange="news", queue="plain", routing_key="k"))
    nobody = await broker.put_user(NOTHING)
    async with broker.publisher(nobody) as publisher:
        with pytest.raises(Forbidden):
            await publisher.publish("news", "k", b"x")
    with pytest.raises(Forbidden):
        async with asyncio.timeout(PATIENCE_S):
            await broker.consumer(nobody, "plain").run(lambda _: None)


async def test_an_exclusive_consumer_shares_with_nobody(broker: Broker, user: str):
    await broker.put(CLASSIC)
    async with consuming(broker.consumer(user, "plain", exclusive=True)) as inbox:
        await inbox.wait_connected()
        with pytest.raises(Refused) as refused:
            async with asyncio.timeout(PATIENCE_S):
                await broker.consumer(user, "plain", exclusive=True).run(lambda _: None)
    assert refused.value.code == "in_use"
    async with consuming(broker.consumer(user, "plain", exclusive=True)) as inbox:
        await inbox.wait_connected()


async def test_consuming_a_queue_that_is_not_there_says_so(broker: Broker, user: str):
    with pytest.raises(NotFound):
        async with asyncio.timeout(PATIENCE_S):
            await broker.consumer(user, "nowhere").run(lambda _: None)


async def test_a_consumer_learns_that_its_queue_was_deleted(broker: Broker, user: str):
    await broker.put(CLASSIC)
    consumer = broker.consumer(user, "plain")
    connected = asyncio.Event()

    async def on_connected() -> None:
        connected.set()

    task = asyncio.create_task(consumer.run(lambda _: None, on_connected=on_connected))
    async with asyncio.timeout(PATIENCE_S):
        await connected.wait()
        await broker.delete_queue("plain")
        with pytest.raises(NotFound):
            await task


async def cut(broker: Broker, user: str, inbox: Inbox) -> None:
    """Close a user's connections until the consumer has had to make a new one: a fresh one is on record a little late."""
    async with asyncio.timeout(PATIENCE_S):
        while not inbox.connected.is_set():
            await broker.close_connections(user)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await inbox.connected.wait()
    inbox.connected.clear()


async def test_a_closed_connection_is_made_again_and_what_was_in_hand_comes_again(broker: Broker, user: str):
    await broker.put(QUORUM)
    async with broker.publisher(user) as publisher:
        await publisher.publish("", "counted", b"x")
    async with consuming(broker.consumer(user, "counted")) as inbox:
        first = await inbox.next()
        await inbox.wait_connected()
        await cut(broker, user, inbox)
        second = await inbox.next()
        await first.ack()  # of the connection that is gone
        await second.ack()
    assert (second.body, second.redelivered) == (b"x", True)


async def test_a_deleted_user_is_cut_off_at_once(broker: Broker, user: str):
    await broker.put(CLASSIC)
    device = await broker.put_user()
    consumer = broker.consumer(device, "plain")
    connected = asyncio.Event()

    async def on_connected() -> None:
        connected.set()

    task = asyncio.create_task(consumer.run(lambda _: None, on_connected=on_connected))
    async with asyncio.timeout(PATIENCE_S), broker.publisher(device) as publisher:
        await connected.wait()
        await publisher.publish("", "plain", b"while it may")
        await broker.delete_user(device)
        with pytest.raises(Forbidden):
            await task
        with pytest.raises(Forbidden):
            await _publish_until_refused(publisher)


async def _publish_until_refused(publisher: Publishing) -> None:
    while True:
        try:
            await publisher.publish("", "plain", b"no more")
        except Unavailable:
            pass  # the broker closes the open connection within moments, and a publish may meet its end

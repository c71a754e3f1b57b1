"""The worker as a process: killed at the worst instants, stopped politely, told nonsense."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from broker.connection import Consumer, Delivery, Publisher
from broker.delivery import REASON_HEADER
from broker.messages import ChangeNotice, CommitAccepted, CommitRefused
from broker.topology import DEAD, REQUESTS
from deploy import processes
from deploy.keep import Ports, Secrets
from deploy.servers import Postgres
from metadata.database import close, connect
from metadata.migrate import migrate
from tests.commits.postgres import PostgresBacking
from tests.commits.words import delete, put
from tests.commits.world import World
from tests.integration.sync_workers.conftest import Stage
from tests.servers.fixtures import PostgresServer
from tests.servers.running import kill_all, start_server

DYING = "tests.integration.sync_workers.dying"


@pytest.fixture
async def world(stage: Stage) -> World:
    return await people(stage)


async def people(stage: Stage) -> World:
    """The cast, with response queues."""
    world = await World.make(stage.backing)
    for user in ("alice", "bob"):
        await stage.add_queue(queue(world, user), world.id("home"))
    await world.look()
    return world


def queue(world: World, user: str) -> str:
    return f"device.{world.id(user).hex}"


@pytest.mark.parametrize("death", ["before commit", "before publish", "before ack"])
async def test_a_killed_worker_does_nothing_twice_and_leaves_nothing_out(
    stage: Stage, world: World, death: str
) -> None:
    alice, bob = queue(world, "alice"), queue(world, "bob")
    inboxes = stage.inboxes
    async with stage.sending() as send, stage.listening(alice, bob):
        async with stage.worker(module=DYING, HUTCH_TEST_DEATH=death) as dying:
            await send(world.request([put("f")(world)]))
            await asyncio.wait_for(dying.process.wait(), 60)
        assert dying.process.returncode == -signal.SIGKILL
        async with stage.worker("two"):
            await inboxes.wait_for(lambda: bool(inboxes.got.get(bob)) and bool(inboxes.got.get(alice)))
            await send(world.request([put("g")(world)]))
            await inboxes.wait_for(lambda: _seen(inboxes.got[bob]) == 2)
    [(entry, _), _] = await stage.backing.list_journal(world.id("home"))
    assert {m.entries for m in inboxes.got[bob][:-1] if isinstance(m, ChangeNotice)} == {(entry,)}
    told = [type(message) for message in inboxes.got[alice]]
    assert told.count(CommitAccepted) == (0 if death == "before commit" else 1)
    assert await world.tree() == {"f": "a", "g": "a"}


def _seen(messages: Sequence[object]) -> int:
    return max(message.head.seq for message in messages if isinstance(message, ChangeNotice))


async def test_a_worker_tells_how_it_is_and_stops_politely(stage: Stage, world: World) -> None:
    bob = queue(world, "bob")
    async with stage.listening(bob), stage.sending() as send, stage.worker() as worker:
        await worker.wait_ready()
        assert (await worker.get("/health/live"))[0] == 200
        await send(world.request([put("f")(world)]))
        await stage.inboxes.wait_for(lambda: bool(stage.inboxes.got))
        status, text = await worker.get("/metrics")
        assert status == 200
        assert 'hutch_workers_commits_total{outcome="accepted"} 1.0' in text


async def test_a_stop_in_the_middle_loses_and_doubles_nothing(stage: Stage, world: World) -> None:
    number = 300
    bob = queue(world, "bob")
    async with stage.sending() as send:
        for n in range(number):
            await send(world.request([put(f"f{n}")(world)], incarnation=f"of {n}"))
    async with stage.listening(bob):
        async with stage.worker("one"):
            await stage.inboxes.wait_for(lambda: bool(stage.inboxes.got))
        async with stage.worker("two"):
            await stage.inboxes.wait_for(lambda: _seen(stage.inboxes.got[bob]) == number)
    assert len(await stage.backing.list_journal(world.id("home"))) == number
    assert len(await world.tree()) == number


async def test_strange_messages_are_kept_with_their_reason(stage: Stage, world: World) -> None:
    letters: list[Delivery] = []
    arrived = asyncio.Event()

    async def take(delivery: Delivery) -> None:
        letters.append(delivery)
        if len(letters) == 3:
            arrived.set()

    address = stage.address
    async with stage.worker() as worker, asyncio.TaskGroup() as group:
        reading = group.create_task(Consumer(address, DEAD, prefetch=8).run(take))
        async with (
            Publisher(address, user_id=None) as nobody,
            Publisher(address, user_id=address.user) as relay,
        ):
            await nobody.publish(REQUESTS, REQUESTS, b"from nobody")
            await relay.publish(REQUESTS, REQUESTS, b"junk")
            await relay.publish(REQUESTS, REQUESTS, b"\x82\xa4type\xa6commit\xa1v\x02")
        await asyncio.wait_for(arrived.wait(), 60)
        reading.cancel()
        assert worker.process.returncode is None
    assert sorted(str(letter.headers[REASON_HEADER]) for letter in letters) == [
        "corrupt",
        "corrupt",
        "missing_user_id",
    ]


async def test_a_bad_commit_in_a_batch_is_refused_alone(stage: Stage, world: World) -> None:
    alice = queue(world, "alice")
    inboxes = stage.inboxes
    async with stage.sending() as send, stage.listening(alice):
        for name, say in (("f", put("f")), ("bad", put("bad", "..")), ("none", delete("none", base=4))):
            await send(world.request([say(world)], incarnation=name))
        async with stage.worker():
            await inboxes.wait_for(lambda: len(inboxes.got.get(alice, [])) == 3)
    refusals = [message for message in inboxes.got[alice] if isinstance(message, CommitRefused)]
    assert [[c.code.value for c in refusal.conflicts] for refusal in refusals] == [
        ["bad_name"],
        ["stale_version"],
    ]
    assert await world.tree() == {"f": "a"}


async def test_a_senseless_setting_ends_it_at_once(stage: Stage) -> None:
    async with stage.worker(HUTCH_WORKERS_PREFETCH="many") as worker:
        assert await asyncio.wait_for(worker.process.wait(), 60) == 78


async def test_a_database_without_the_schema_ends_it_at_once(
    stage: Stage, postgres_server: PostgresServer
) -> None:
    dsn = await postgres_server.create_database()
    async with stage.worker(HUTCH_POSTGRES_DSN=dsn) as worker:
        assert await asyncio.wait_for(worker.process.wait(), 60) == 78


# --- a database that is killed


@pytest.fixture
def mortal_postgres() -> Iterator[Postgres]:
    """A server that only this test uses."""
    folder = Path(tempfile.mkdtemp(prefix="hutch mortal "))
    try:
        server = Postgres(folder, Ports(folder), Secrets(folder), durable=False)
        start_server(server, folder)
        yield server
    finally:
        kill_all(folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def mortal_stage(stage: Stage, mortal_postgres: Postgres) -> AsyncIterator[Stage]:
    """The stage, on that server."""
    dsn = mortal_postgres.dsn_of("postgres")
    await migrate(dsn)
    pool = await connect(dsn)
    yield Stage(dsn, stage.vhost, PostgresBacking(pool), stage.management, stage.worker_amqp_url)
    await close(pool)


async def test_commits_outlive_the_database(mortal_stage: Stage, mortal_postgres: Postgres) -> None:
    stage, number = mortal_stage, 200
    world = await people(stage)
    bob = queue(world, "bob")
    async with stage.sending() as send, stage.listening(bob), stage.worker() as worker:
        await worker.wait_ready()
        for n in range(number):
            await send(world.request([put(f"f{n}")(world)], incarnation=f"of {n}"))
            if n == number // 2:
                processes.end(processes.find_inside(mortal_postgres.data), signal.SIGKILL)
        await asyncio.to_thread(start_server, mortal_postgres, mortal_postgres.folder)
        await stage.inboxes.wait_for(
            lambda: bool(stage.inboxes.got) and _seen(stage.inboxes.got[bob]) == number, 120
        )
        assert "hutch_workers_dead_letters_total{" not in (await worker.get("/metrics"))[1]
    assert len(await stage.backing.list_journal(world.id("home"))) == number

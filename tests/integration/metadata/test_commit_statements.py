"""What a batch costs: a number of statements that depends on what is asked, never on how much of it."""

from contextlib import asynccontextmanager

import asyncpg
import pytest

from metadata.migrate import migrate
from metadata.state import Guard
from metadata.store import COMMIT_SETTINGS, MAX_STATEMENTS, Store
from sync_workers.decide import decide
from tests.commits.postgres import PostgresBacking
from tests.commits.words import chmod, copy, delete, mkdir, move, put, splice
from tests.commits.world import World, codes


class OneConnection:
    """A pool of one connection that counts what goes over it."""

    def __init__(self, connection):
        self.connection = connection
        self.statements = 0
        connection.add_query_logger(self.count)

    def count(self, _record):
        self.statements += 1

    @asynccontextmanager
    async def acquire(self, timeout):
        yield self.connection


@pytest.fixture
async def dsn(postgres_server):
    dsn = await postgres_server.create_database()
    await migrate(dsn)
    return dsn


@pytest.fixture
async def world(dsn):
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        world = await World.make(PostgresBacking(pool))
        await world.look()
        yield world


@pytest.fixture
async def counted(dsn):
    connection = await asyncpg.connect(dsn, server_settings=dict(COMMIT_SETTINGS))
    yield OneConnection(connection)
    await connection.close()


def everything(world, name):
    """Operations that together need every statement."""
    return [
        say(world)
        for say in (
            put(f"old {name}", content=splice(0, 1, "c", "cb")),
            put(f"copied {name}", content=copy("source")),
            mkdir(f"made {name}"),
            move(f"moved {name}", f"now {name}"),
            delete(f"gone {name}"),
        )
    ]


def preparation(world, name):
    return [
        say(world)
        for say in (
            put(f"old {name}", content="ab"),
            put(f"moved {name}"),
            put(f"gone {name}", content="ab"),
        )
    ]


async def count(world, counted, batches):
    submissions = [
        world.request([op for name in names for op in everything(world, name)], incarnation=f"of {names[0]}")
        for names in batches
    ]
    counted.statements = 0
    # From the first node on, so that it is asked for each batch alike how many stand.
    result = await Store(counted, "test", Guard(min_nodes=0)).commit_batch(submissions, decide)
    assert [codes(outcome) for outcome in result.outcomes] == [[]] * len(batches)
    return counted.statements


async def test_the_number_of_statements_is_fixed(world, counted):
    names = [f"{number}" for number in range(2 + 64 + 100)]
    operations = [op for name in names for op in preparation(world, name)]
    await world.submit(world.request([put("source", content="d")(world), *operations]))
    await world.look()
    behind = world.heads["home"]
    await world.submit(world.request([chmod("source")(world)]))
    await world.look()
    world.heads["home"] = behind  # so that the chain has to be looked up, too
    await count(world, counted, [names[:1]])  # the driver asks about types at first
    few = await count(world, counted, [names[1:2]])
    many = await count(world, counted, [[name] for name in names[2:66]])
    large = await count(world, counted, [names[66:]])
    assert few == many == large
    assert few <= MAX_STATEMENTS + 2  # BEGIN and COMMIT

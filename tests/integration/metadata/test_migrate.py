"""The chain of migrations: it makes the schema that stands in schema.sql, once, whoever runs it."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from broker.errors import Misconfigured, Unavailable
from metadata.database import close, connect, translate
from metadata.migrate import migrate, migrations, newest_version
from metadata.sql import read

SHAPE = """
    SELECT 'column', table_name || '.' || column_name,
           concat_ws(' ', data_type, is_nullable, column_default, collation_name)
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'option', attrelid::regclass || '.' || attname, attoptions::text
    FROM pg_attribute WHERE attoptions IS NOT NULL
    UNION ALL
    SELECT 'constraint', conrelid::regclass || '.' || conname,
           concat_ws(' ', pg_get_constraintdef(oid), condeferrable, condeferred)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', tablename || '.' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'routine', proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1, 2
"""


async def shape(dsn):
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(SHAPE)]
    finally:
        await connection.close()


async def test_schema_and_migrations_meet(postgres_server):
    by_hand, by_steps = await postgres_server.create_database(), await postgres_server.create_database()
    connection = await asyncpg.connect(by_hand)
    await connection.execute(read("schema.sql"))
    await connection.close()
    await migrate(by_steps)
    expected = await shape(by_hand)
    assert len(expected) > 80
    assert await shape(by_steps) == expected


async def test_two_at_once_apply_each_migration_once(postgres_server):
    dsn = await postgres_server.create_database()
    results = await asyncio.gather(*(migrate(dsn) for _ in range(3)))
    assert sorted(len(applied) for applied in results) == [0, 0, newest_version()]


async def test_a_program_does_not_start_on_another_schema(postgres_server):
    dsn = await postgres_server.create_database()
    with pytest.raises(Misconfigured, match=r"metadata\.migrate"):
        await connect(dsn)
    await migrate(dsn)
    pool = await connect(dsn)
    await pool.execute("INSERT INTO schema_version (version) VALUES ($1)", newest_version() + 1)
    await close(pool)
    with pytest.raises(Misconfigured, match="newer"):
        await connect(dsn)
    with pytest.raises(Misconfigured, match="newer"):
        await migrate(dsn)


async def test_an_unreachable_server_is_unavailable_and_a_strange_address_misconfigured():
    with pytest.raises(Unavailable):
        await connect("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Misconfigured):
        await connect("no address at all")


async def test_a_wrong_statement_is_not_taken_for_an_outage(postgres_server):
    dsn = await postgres_server.create_database()
    await migrate(dsn)
    pool = await connect(dsn)
    with pytest.raises(asyncpg.DataError), translate():
        await pool.fetchval("SELECT $1::integer", "no number")
    with pytest.raises(asyncpg.DivisionByZeroError), translate():
        await pool.fetchval("SELECT 1 / 0")
    await close(pool)
    with pytest.raises(Unavailable), translate():
        await pool.fetchval("SELECT 1")


async def test_what_stood_before_there_was_a_guard_is_old(postgres_server):
    dsn = await postgres_server.create_database()
    connection = await asyncpg.connect(dsn)
    await connection.execute(";".join(each.sql for each in migrations() if each.version < 3))
    await connection.execute("INSERT INTO schema_version (version) VALUES (1), (2)")
    user_id, workspace_id = uuid4(), uuid4()
    await connection.execute("INSERT INTO users VALUES ($1, 'a@example.org', '')", user_id)
    await connection.execute(
        "INSERT INTO workspaces (workspace_id, owner_id, name, head_chain) VALUES ($1, $2, 'w', $3)",
        workspace_id,
        user_id,
        bytes(32),
    )
    add = (
        "INSERT INTO nodes (workspace_id, node_id, parent_id, name, kind, version)"
        " VALUES ($1, $2, $2, $3, 'directory', 1)"
    )
    await connection.execute(add, workspace_id, uuid4(), "before")
    assert await migrate(dsn) == list(range(3, newest_version() + 1))
    await connection.execute(add, workspace_id, uuid4(), "after")
    rows = await connection.fetch(
        "SELECT name, made_at > now() - interval '1 hour' AS young FROM nodes ORDER BY name"
    )
    assert [tuple(row) for row in rows] == [("after", True), ("before", False)]
    await connection.close()

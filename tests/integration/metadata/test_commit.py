"""The commit on a real database: the same cases and rules as on the twin, and what only a database can show."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from broker.model import first_chain
from metadata.database import close, connect
from metadata.migrate import migrate
from metadata.store import COMMIT_SETTINGS
from tests.commits.cases import CASES, Case
from tests.commits.guarding import GUARDING
from tests.commits.postgres import PostgresBacking
from tests.commits.rules import RULES, Rule
from tests.commits.suite import hold


@pytest.fixture(scope="module")
async def backing(postgres_server):
    dsn = await postgres_server.create_database()
    await migrate(dsn)
    pool = await connect(dsn, settings=COMMIT_SETTINGS)
    yield PostgresBacking(pool)
    await close(pool)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
async def test_a_commit(case: Case, backing: PostgresBacking):
    await hold(case, backing)


@pytest.mark.parametrize("rule", [*RULES, *GUARDING], ids=lambda rule: rule.__name__)
async def test_a_rule(rule: Rule, backing: PostgresBacking):
    await rule(backing)


async def test_a_decision_that_gave_one_name_twice_would_be_stopped(postgres_server):
    """The tripwire behind `decide`: names may be exchanged on the way, and not be double when a transaction ends."""
    dsn = await postgres_server.create_database()
    await migrate(dsn)
    pool = await connect(dsn, settings=COMMIT_SETTINGS)
    root, user_id, workspace_id = UUID(int=0), uuid4(), uuid4()
    one, other = UUID(int=1), UUID(int=2)
    add = "INSERT INTO nodes (workspace_id, node_id, parent_id, name, kind, version) VALUES ($1, $2, $3, $4, 'file', 1)"
    name = "UPDATE nodes SET name = $3 WHERE workspace_id = $1 AND node_id = $2"
    async with pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO users (user_id, email, password_hash) VALUES ($1, 'ada@example.org', 'x')", user_id
        )
        await connection.execute(
            "INSERT INTO workspaces (workspace_id, owner_id, name, head_chain) VALUES ($1, $2, 'docs', $3)",
            workspace_id,
            user_id,
            first_chain(workspace_id),
        )
        await connection.execute(add, workspace_id, one, root, "a")
        await connection.execute(add, workspace_id, other, root, "b")
        async with connection.transaction():
            await connection.execute(name, workspace_id, one, "b")
            await connection.execute(name, workspace_id, other, "a")
        with pytest.raises(asyncpg.ExclusionViolationError, match="nodes_live_name"):
            async with connection.transaction():
                await connection.execute(name, workspace_id, one, "a")
        await connection.execute("UPDATE nodes SET deleted = true WHERE node_id = $1", other)
        await connection.execute(name, workspace_id, one, "a")  # a tombstone has no name to lose
    await close(pool)

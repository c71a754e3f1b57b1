"""The commit on a real database: the same cases and rules as on the twin, and what only a database can show."""

import pytest

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

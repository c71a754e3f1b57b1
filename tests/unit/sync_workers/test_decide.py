"""The pure decision, on the in-memory twin of the store."""

import pytest

from metadata.memory import MemoryStore
from tests.commits.cases import CASES, Case
from tests.commits.guarding import GUARDING
from tests.commits.rules import RULES, Rule
from tests.commits.suite import hold


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
async def test_a_commit(case: Case):
    await hold(case, MemoryStore())


@pytest.mark.parametrize("rule", [*RULES, *GUARDING], ids=lambda rule: rule.__name__)
async def test_a_rule(rule: Rule):
    await rule(MemoryStore())

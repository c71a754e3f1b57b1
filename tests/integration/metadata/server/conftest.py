"""A metadata server for all tests of this folder, and one of one's own for those that break something."""

import pytest

from tests.integration.metadata.server.house import open_house


@pytest.fixture(scope="session")
async def house(postgres_server, rabbitmq_server):
    async with open_house(postgres_server, rabbitmq_server) as opened:
        yield opened


@pytest.fixture
async def own_house(postgres_server, rabbitmq_server):
    async with open_house(postgres_server, rabbitmq_server) as opened:
        yield opened

"""Whether the server lives, whether it can serve, what it counts, and the authority that devices pin."""

import asyncio
from typing import Final

from aiohttp import web

from broker.connection import BrokerAddress, check
from broker.errors import HutchError, NotFound, Unavailable
from metadata.database import translate
from metadata.server.answers import json_answer
from metadata.server.services import SERVICES, Services

PROBE_TIMEOUT_S: Final = 5.0


async def get_ca(request: web.Request) -> web.StreamResponse:
    """`GET /v1/ca`."""
    pem = request.app[SERVICES].settings.ca
    if pem is None:
        raise NotFound("this service has no certificate authority of its own")
    return web.Response(body=pem, content_type="application/x-pem-file")


async def live(request: web.Request) -> web.StreamResponse:
    """`GET /health/live`: the process answers."""
    return json_answer({"status": "live"})


async def ready(request: web.Request) -> web.StreamResponse:
    """`GET /health/ready`: 200 when PostgreSQL and the broker are reached, and the broker follows; else 503."""
    services = request.app[SERVICES]
    problems = await _problems(services)
    answer = {"status": "unready" if problems else "ready", "problems": problems}
    return json_answer(answer, 503 if problems else 200)


async def metrics(request: web.Request) -> web.StreamResponse:
    """`GET /metrics`, for Prometheus."""
    services = request.app[SERVICES]
    services.metrics.broker_follows.set(services.follower.healthy)
    return web.Response(
        body=services.metrics.render(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


async def _problems(services: Services) -> list[str]:
    if services.stopping.is_set():
        return ["stopping"]
    problems = []
    try:
        await _probe_postgres(services)
    except Unavailable:
        problems.append("postgres")
    try:
        await _probe_broker(services)
    except (HutchError, TimeoutError):
        problems.append("broker")
    return problems


async def _probe_postgres(services: Services) -> None:
    with translate():
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await services.pool.fetchval("SELECT 1")


async def _probe_broker(services: Services) -> None:
    if not services.follower.healthy:
        raise Unavailable("the broker does not follow")
    async with asyncio.timeout(PROBE_TIMEOUT_S):
        await check(BrokerAddress.parse(services.settings.amqp_url))

"""Drops what is past its time: staged bodies after a day, proofs of upload after their lease."""

import asyncio
import secrets
from typing import Final

import structlog

from broker.errors import HutchError
from metadata.registry import Registry
from metadata.server.metrics import Metrics

SWEEP_EVERY_S: Final = 600.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def keep_house(registry: Registry, metrics: Metrics) -> None:
    """Sweep at the start and every ten minutes or so, until cancelled. Several processes may do so at once."""
    while True:
        await _sweep_once(registry, metrics)
        await asyncio.sleep(SWEEP_EVERY_S * (0.75 + secrets.randbelow(501) / 1000))


async def _sweep_once(registry: Registry, metrics: Metrics) -> None:
    try:
        bodies, proofs = await registry.sweep()
    except HutchError as error:
        log.warning("sweep.failed", error=str(error))
        return
    metrics.swept.labels("staged_body").inc(bodies)
    metrics.swept.labels("chunk_proof").inc(proofs)
    if bodies or proofs:
        log.info("sweep.finished", bodies=bodies, proofs=proofs)

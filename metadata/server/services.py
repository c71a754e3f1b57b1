"""What the handlers of one metadata server share, and how they find it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from broker.connection import Publisher
from metadata.accounts import Passwords
from metadata.catch_up import CatchUp
from metadata.registry import Registry
from metadata.server.follower import Follower
from metadata.server.in_hand import InHand
from metadata.server.metrics import Metrics
from metadata.server.settings import Settings
from metadata.server.tries import Tries

STREAMS_AT_ONCE: Final = 6
"""Snapshots and histories at once: each holds a connection to PostgreSQL for as long as its reader takes."""

UPLOADS_AT_ONCE: Final = 16
"""Bodies that are being received at once: each takes 64 MiB of temporary disk at most."""

STORES_AT_ONCE: Final = 2
"""Bodies that are being written to PostgreSQL at once: each is in memory meanwhile."""

POOL_SIZE: Final = 24


@dataclass(frozen=True, kw_only=True)
class Services:
    """One server's parts. All of them are for one event loop."""

    settings: Settings
    pool: Any
    registry: Registry
    catch_up: CatchUp
    follower: Follower
    publisher: Publisher
    metrics: Metrics
    passwords: Passwords = field(default_factory=Passwords)
    tries: Tries = field(default_factory=Tries)
    streams: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STREAMS_AT_ONCE))
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UPLOADS_AT_ONCE))
    stores: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STORES_AT_ONCE))
    in_hand: InHand = field(default_factory=InHand)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


SERVICES: Final = web.AppKey("services", Services)

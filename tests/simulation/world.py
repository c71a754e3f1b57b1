"""What of the outside world a run replaces in the engine: the clock, chance, the watcher. The disk has a room of its own."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from unittest import mock
from uuid import UUID

from agent.watch import WatchEnded
from tests.simulation.loop import SimulatedLoop


class Watcher:
    """What `agent.watch` is to the looker: tells of changes a little later, forgets some, and at times has to begin anew."""

    WatchEnded = WatchEnded

    def __init__(self, loop: SimulatedLoop, chance: random.Random) -> None:
        self._loop = loop
        self._chance = chance
        self._waiting: dict[str, list[asyncio.Queue[str]]] = {}
        self.forgets = 0.0

    def tell(self, folder: str, path: str) -> None:
        """Something was changed at an absolute path inside a folder."""
        if self._chance.random() < self.forgets:
            return
        for queue in self._waiting.get(folder, ()):
            self._loop.call_later(self._chance.expovariate(20), queue.put_nowait, path)

    async def awatch(self, folder: str, **_: object) -> AsyncIterator[set[str]]:
        """As `agent.watch.awatch`."""
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._waiting.setdefault(folder, []).append(queue)
        try:
            while True:
                paths = {await queue.get()}
                await asyncio.sleep(0.04)
                while not queue.empty():
                    paths.add(queue.get_nowait())
                if self._chance.random() < self.forgets / 10:
                    raise WatchEnded("events were lost")
                yield paths
        finally:
            self._waiting[folder].remove(queue)


@contextlib.contextmanager
def patched(loop: SimulatedLoop, chance: random.Random, watcher: Watcher) -> Iterator[None]:
    """Replace clock, chance and watcher in the engine's modules, while the block lasts."""
    clock = SimpleNamespace(time_ns=loop.wall_ns, perf_counter=loop.time, monotonic=loop.time)

    def new_id() -> UUID:
        return UUID(int=chance.getrandbits(128), version=4)

    today = SimpleNamespace(today=lambda: SimpleNamespace(isoformat=lambda: "2026-11-23"))
    with contextlib.ExitStack() as stack:
        for target, value in (
            ("agent.folder.time", clock),
            ("agent.hashing.time", clock),
            ("agent.replica.time", clock),
            ("agent.folder.date", today),
            ("agent.folder.new_node_id", new_id),
            ("agent.index.uuid", SimpleNamespace(uuid4=new_id)),
            ("agent.patience.random", chance),
            ("agent.look.watch", watcher),
        ):
            stack.enter_context(mock.patch(target, value))
        yield

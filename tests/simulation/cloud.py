"""The service in a run: real workers and the real decision, on the in-memory twins of broker and store, and a bad network."""

import asyncio
import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from msgspec import structs

from broker import topology
from broker.errors import Unavailable
from broker.memory import MemoryBroker, MemoryPublisher
from broker.model import Chunk, Cursor
from metadata.memory import MemoryStore
from sync_workers.metrics import Metrics
from sync_workers.worker import Worker
from tests.agents.world import Line
from tests.simulation.loop import LIFE, Life

if TYPE_CHECKING:
    from tests.simulation.device import SimulatedDevice

PREFETCH: Final = 16
WORKER_USER: Final = "hutch-workers"
RELAY_USER: Final = "hutch-relay"


@dataclass
class Weather:
    """How bad the network is: chances by message or call, 0 to 1."""

    lost: float = 0.0
    doubled: float = 0.0
    swapped: float = 0.0
    failed: float = 0.0


class Cloud:
    """One user's workspace, its broker, its store, and the workers."""

    def __init__(self, chance: random.Random, weather: Weather) -> None:
        self.chance = chance
        self.weather = weather
        self.store = MemoryStore()
        self.broker = MemoryBroker()
        self.chunks: dict[bytes, bytes] = {}
        self.user_id = self.new_id()
        self.workspace_id = self.new_id()
        self.counts = {"lost": 0, "doubled": 0, "swapped": 0, "worker_crashes": 0}
        self.epoch = 1
        self._workers: list[Life] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, workers: int) -> None:
        """Set up the workspace, and start so many workers."""
        await self.store.add_user(self.user_id, None)
        await self.store.add_workspace(self.workspace_id, self.user_id)
        self.broker.ensure_topology()
        for number in range(workers):
            self.start_worker(number)

    def new_id(self) -> UUID:
        """A random id, of this run's seed."""
        return UUID(int=self.chance.getrandbits(128), version=4)

    @property
    def head(self) -> Cursor:
        """Where the journal stands."""
        return self.store.workspaces[self.workspace_id].head

    async def add_device(self, device_id: UUID, queue: str) -> None:
        """Link a device: its user, its queue, its binding."""
        await self.store.add_device(device_id, self.user_id, queue)
        self.broker.put_user(topology.device_user(device_id), topology.device_permissions(queue))
        self.broker.ensure_queue(topology.device_queue(queue))
        self.broker.bind(topology.device_binding(queue, self.workspace_id))

    def backup(self) -> bytes:
        """What the store holds now."""
        return pickle.dumps(self.store)

    def restore(self, backup: bytes) -> None:
        """Put a backup in place, under a new epoch. The store stays the same object: workers have it."""
        self.store.__dict__.update(pickle.loads(backup).__dict__)
        self.epoch += 1
        workspace = self.store.workspaces[self.workspace_id]
        self.store.workspaces[self.workspace_id] = structs.replace(workspace, epoch=self.epoch)

    # --- workers

    def start_worker(self, number: int) -> None:
        """Start a worker, as a user of its own, so that its connection can be cut alone."""
        user = f"{WORKER_USER}-{number}"
        self.broker.put_user(user, {"configure": "^$", "write": ".*", "read": ".*"})
        life = Life(user, lambda: self.broker.close_connections(user))
        self._workers[number : number + 1] = [life]
        self._tasks.append(asyncio.create_task(self._work(life, user), name=user))

    async def _work(self, life: Life, user: str) -> None:
        LIFE.set(life)
        worker = Worker(
            consumer=self.broker.consumer(topology.REQUESTS, prefetch=PREFETCH, user=user),
            publisher=_Post(self.broker, user, self.chance),
            store=self.store,
            metrics=Metrics(),
            prefetch=PREFETCH,
            relay_user=RELAY_USER,
        )
        await asyncio.create_task(worker.run(asyncio.Event()))

    def crash_worker(self) -> None:
        """Cut off a worker, and start another: what was in its hand comes again."""
        number = self.chance.randrange(len(self._workers))
        self._workers[number].end()
        self.counts["worker_crashes"] += 1
        self.start_worker(number)


class _Post(MemoryPublisher):
    """A worker's publisher: confirms take a moment, and a worker may be cut off before or after."""

    def __init__(self, broker: MemoryBroker, user: str, chance: random.Random) -> None:
        super().__init__(broker, user, None)
        self._chance = chance

    async def publish(self, *args: object, **options: object) -> None:
        await asyncio.sleep(self._chance.expovariate(200))
        await super().publish(*args, **options)  # type: ignore[arg-type]
        await asyncio.sleep(self._chance.expovariate(200))


class Wire(Line):
    """A device's line to the service: slow, and at times it fails, before or after the other side has heard."""

    def __init__(self, device: "SimulatedDevice", cloud: Cloud) -> None:
        self.device = device  # type: ignore[assignment]
        self.world = cloud  # type: ignore[assignment]
        self._publisher = cloud.broker.publisher(
            user=topology.device_user(device.device_id), user_id=topology.device_user(device.device_id)
        )

    async def _travel(self) -> None:
        cloud: Cloud = self.world  # type: ignore[assignment]
        await asyncio.sleep(cloud.chance.expovariate(50))
        self._check()
        if cloud.chance.random() < cloud.weather.failed:
            raise Unavailable("the network failed")

    async def publish(
        self, exchange: str, routing_key: str, body: bytes, *, timeout_s: float = 30, headers: object = None
    ) -> None:
        cloud: Cloud = self.world  # type: ignore[assignment]
        await self._travel()
        await self._publisher.publish(exchange, routing_key, body)
        if cloud.chance.random() < cloud.weather.doubled:
            cloud.counts["doubled"] += 1
            await self._publisher.publish(exchange, routing_key, body)
        await self._travel()

    async def missing(self, workspace_id: UUID, hashes: Sequence[bytes]) -> set[bytes]:
        await self._travel()
        return await super().missing(workspace_id, hashes)

    async def upload(
        self,
        workspace_id: UUID,
        chunks: Iterable[tuple[Chunk, Callable[[], bytes | None]]],
        on_bytes: Callable[[int], None],
    ) -> set[bytes]:
        stored = await super().upload(workspace_id, chunks, on_bytes)
        await self._travel()
        return stored

    async def download(
        self,
        workspace_id: UUID,
        chunks: Sequence[Chunk],
        sink: Callable[[Chunk, bytes], None],
        on_bytes: Callable[[int], None],
    ) -> set[bytes]:
        await self._travel()
        return await super().download(workspace_id, chunks, sink, on_bytes)

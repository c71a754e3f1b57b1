"""A device in a run: the real folder engine on a simulated disk, its start, its crashes, and its line to the service."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agent.folder import REOPEN_S, Folder
from agent.home import Credential, FolderRecord
from agent.index import Index
from agent.marker import Marker, read_marker, write_marker
from broker.delivery import Delivery
from broker.errors import HutchError
from broker.messages import ChangeNotice, CommitAccepted, CommitRefused, decode_inbox
from broker.topology import device_user
from tests.simulation.cloud import Cloud, Wire
from tests.simulation.loop import LIFE, Life

HEADS_EVERY_S: Final = 900.0
PREFETCH: Final = 8


class SimulatedDevice:
    """One device of the user. `home` is a real directory, for its database alone."""

    def __init__(self, cloud: Cloud, name: str, folder: str, home: Path) -> None:
        self.cloud = cloud
        self.name = name
        self.device_id = cloud.new_id()
        self.queue = f"device.{self.device_id.hex}"
        self.path = Path(folder)
        self.home = home
        self.online = asyncio.Event()
        self.online.set()
        self._offline = asyncio.Event()
        self.may_run = asyncio.Event()
        self.may_run.set()
        self.asked = asyncio.Event()
        self.life: Life | None = None
        self.folder: Folder | None = None
        self.failure: BaseException | None = None
        self.crashes = 0
        self.on_end: Callable[[], None] = lambda: None
        self._index: Index | None = None
        self._working: asyncio.Task[None] | None = None
        self._kept: list[asyncio.Task[Any]] = []

    # --- running

    def start(self) -> None:
        """Start the agent."""
        self.life = Life(self.name, self._on_end)
        self._kept.append(asyncio.create_task(self._run(self.life), name=f"agent {self.name}"))

    def crash(self) -> None:
        """Cut the agent off, wherever it is."""
        if self.life is not None:
            self.life.end()

    def go_offline(self) -> None:
        """There is no network."""
        self.online.clear()
        self._offline.set()

    def go_online(self) -> None:
        """There is one."""
        self._offline.clear()
        self.online.set()

    def stop(self) -> None:
        """Ask the agent to stop: it ends what it has begun."""
        if self._working is not None and self.is_running:
            self._working.cancel()

    def resume(self) -> None:
        """Let it send and place again."""
        self.may_run.set()
        if self.folder is not None:
            self.folder.replica.notify()

    @property
    def is_running(self) -> bool:
        """Whether the agent has been started, and not been cut off since."""
        return self.life is not None and not self.life.dead

    def _on_end(self) -> None:
        self.crashes += 1
        self.folder = None
        self.cloud.broker.close_connections(device_user(self.device_id))
        if self._index is not None:
            self._index.close_now()  # each call of the database is one transaction: none is open between them
            self._index = None
        self.on_end()

    async def _run(self, life: Life) -> None:
        LIFE.set(life)
        self._working = asyncio.create_task(self._work())
        try:
            await self._working
        except asyncio.CancelledError:
            life.end()
        except BaseException as error:
            if not life.dead:
                self.failure = error
                raise

    async def _work(self) -> None:
        self._index = index = Index(self.home / "index.sqlite")
        try:
            await self._keep(index)
        finally:
            await index.close()
            self._index = None

    async def _keep(self, index: Index) -> None:
        wire = Wire(self, self.cloud)
        folder = await self._open(index, wire)
        self.folder = folder
        async with asyncio.TaskGroup() as group:
            group.create_task(folder.run())
            group.create_task(self._consume(folder))
            group.create_task(self._compare_heads(folder))
            group.create_task(self._look_when_asked(folder))

    async def _open(self, index: Index, wire: Wire) -> Folder:
        """Open the folder, as the agent does: again and again where the disk does not let it."""
        while True:
            try:
                if read_marker(self.path) is None:
                    marker = Marker(workspace_id=self.cloud.workspace_id, device_id=self.device_id)
                    write_marker(self.path, marker)
                return await Folder.open(
                    FolderRecord(folder=str(self.path), workspace_id=self.cloud.workspace_id, name="home"),
                    self._credential(),
                    index,
                    transfer=wire,  # type: ignore[arg-type]
                    service=wire,  # type: ignore[arg-type]
                    publisher=wire,  # type: ignore[arg-type]
                    may_run=self.may_run,
                )
            except OSError:
                await asyncio.sleep(REOPEN_S)

    async def _consume(self, folder: Folder) -> None:
        """The device's queue, over and over: a disconnect ends the consumer, as it does at the real broker."""
        held: list[Delivery] = []

        async def take(delivery: Delivery) -> None:
            await asyncio.sleep(self.cloud.chance.expovariate(100))
            fate = self._befall(delivery, held)
            if delivery not in fate and delivery not in held:
                await delivery.ack()  # lost: the broker will not send it again
            for each in fate:
                message = decode_inbox(each.body)
                if isinstance(message, ChangeNotice | CommitRefused | CommitAccepted):
                    await folder.take(message)
                await each.ack()

        async def greet() -> None:
            folder.compare_head(self.cloud.head)

        while True:
            await self.online.wait()
            consumer = self.cloud.broker.consumer(
                self.queue, prefetch=PREFETCH, exclusive=True, user=device_user(self.device_id)
            )
            running = asyncio.create_task(consumer.run(take, on_connected=greet))
            ending = asyncio.create_task(self._offline.wait())
            await asyncio.wait([running, ending], return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            held.clear()
            running.cancel()
            await asyncio.wait([running])  # an order to stop, which comes meanwhile, goes through
            if not running.cancelled() and not isinstance(failure := running.exception(), HutchError | None):
                raise failure

    def _befall(self, delivery: Delivery, held: list[Delivery]) -> list[Delivery]:
        """What the network makes of a message: lost, twice, or after the next one."""
        weather, chance, counts = self.cloud.weather, self.cloud.chance, self.cloud.counts
        if chance.random() < weather.lost:
            counts["lost"] += 1
            return []
        if chance.random() < weather.swapped and not held:
            counts["swapped"] += 1
            held.append(delivery)
            return []
        late = list(held)
        held.clear()
        if chance.random() < weather.doubled:
            counts["doubled"] += 1
            return [delivery, delivery, *late]
        return [delivery, *late]

    async def _look_when_asked(self, folder: Folder) -> None:
        while True:
            await self.asked.wait()
            self.asked.clear()
            await folder.looker.look_at_all()

    async def _compare_heads(self, folder: Folder) -> None:
        while True:
            folder.compare_head(self.cloud.head)
            await asyncio.sleep(HEADS_EVERY_S * self.cloud.chance.uniform(0.75, 1.25))

    def _credential(self) -> Credential:
        return Credential(
            device_id=self.device_id,
            device_secret="",
            user_id=self.cloud.user_id,
            email="",
            device_name=self.name,
            metadata_url="",
            gateway_url="",
            amqp_url="",
            amqp_password="",
            queue=self.queue,
        )

    # --- how it stands

    def is_settled(self) -> bool:
        """Whether the agent runs, has nothing left to do, and knows the whole journal."""
        if self.failure is not None:
            raise self.failure
        folder = self.folder
        return (
            self.is_running
            and folder is not None
            and folder.is_settled
            and folder.replica.cursor == self.cloud.head
        )

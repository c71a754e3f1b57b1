"""Three workers, twenty devices, five workspaces: two devices race for one node, a thousand times."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest

from broker.messages import ChangeNotice, CommitRefused, CommitRequest, decode_entry
from broker.model import ROOT, Cursor, MakeDirectory, Role, SetAttributes, extend_chain, first_chain
from metadata.state import Submission
from tests.integration.sync_workers.conftest import Stage

WORKSPACES = 5
DEVICES_PER_WORKSPACE = 4
ROUNDS = 200

Send = Callable[[Submission], Awaitable[None]]


class Arena:
    """A workspace with one directory in it, and the devices that race for it."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.workspace_id, self.node_id, self.user_id = uuid4(), uuid4(), uuid4()
        self.devices = [uuid4() for _ in range(DEVICES_PER_WORKSPACE)]
        self.head = Cursor(1, 0, first_chain(self.workspace_id))
        self.pairs: list[tuple[UUID, UUID]] = []
        self._random = random.Random(seed)

    def queue(self, device_id: UUID) -> str:
        return f"device.{device_id.hex}"

    async def build(self) -> None:
        backing = self.stage.backing
        await backing.add_user(self.user_id)
        await backing.add_workspace(self.workspace_id, self.user_id)
        await backing.set_role(self.workspace_id, self.user_id, Role.OWNER)
        for device_id in self.devices:
            await backing.add_device(device_id, self.user_id, self.queue(device_id))
            await self.stage.add_queue(self.queue(device_id), self.workspace_id)

    def submission(self, device_id: UUID, incarnation: UUID, *operations: object) -> Submission:
        request = CommitRequest(
            workspace_id=self.workspace_id,
            incarnation=incarnation,
            number=1,
            cursor=self.head,
            operations=operations,  # type: ignore[arg-type]
        )
        return Submission(device_id=device_id, request=request)

    async def play(self, send: Send) -> None:
        make = MakeDirectory(node_id=self.node_id, parent_id=ROOT, name="raced for", mode=0o755)
        await send(self.submission(self.devices[0], uuid4(), make))
        await self.wait_seq(1)
        for number in range(ROUNDS):
            await self.race(send, number)

    async def race(self, send: Send, number: int) -> None:
        one, two = self._random.sample(self.devices, 2)
        pair = (uuid4(), uuid4())
        self.pairs.append(pair)
        change = SetAttributes(node_id=self.node_id, base_version=self.head.seq, mode=number)
        await asyncio.gather(
            *(
                send(self.submission(device_id, incarnation, change))
                for device_id, incarnation in zip((one, two), pair, strict=True)
            )
        )
        await self.wait_seq(number + 2)
        await self.stage.inboxes.wait_for(lambda: len(self.refused(pair)) == 1)

    async def wait_seq(self, seq: int) -> None:
        """Wait for the notice of the entry, and stand at it."""
        await self.stage.inboxes.wait_for(lambda: self.seen(self.devices[0]) >= seq)
        self.head = max(self.notices(self.devices[0]), key=lambda notice: notice.head.seq).head
        assert self.head.seq == seq

    def notices(self, device_id: UUID) -> list[ChangeNotice]:
        inbox = self.stage.inboxes.got.get(self.queue(device_id), [])
        return [message for message in inbox[-8:] if isinstance(message, ChangeNotice)]

    def seen(self, device_id: UUID) -> int:
        return max((notice.head.seq for notice in self.notices(device_id)), default=0)

    def refused(self, pair: tuple[UUID, UUID]) -> list[CommitRefused]:
        inboxes = (self.stage.inboxes.got.get(self.queue(device_id), [])[-8:] for device_id in self.devices)
        messages = (message for inbox in inboxes for message in inbox)
        return [m for m in messages if isinstance(m, CommitRefused) and m.incarnation in pair]

    async def check(self) -> None:
        """One winner a round, the loser told why, and a journal without gaps or doubles."""
        chain = first_chain(self.workspace_id)
        winners = []
        for seq, (data, stored) in enumerate(await self.stage.backing.list_journal(self.workspace_id), 1):
            chain = extend_chain(chain, data)
            entry = decode_entry(data)
            assert (entry.seq, stored) == (seq, chain)
            winners.append(entry.incarnation)
        assert len(winners) == ROUNDS + 1
        for pair, winner in zip(self.pairs, winners[1:], strict=True):
            assert winner in pair
        await self.check_losers(set(winners))

    async def check_losers(self, winners: set[UUID]) -> None:
        messages = [m for d in self.devices for m in self.stage.inboxes.got[self.queue(d)]]
        refusals = [message for message in messages if isinstance(message, CommitRefused)]
        assert {refusal.incarnation for refusal in refusals} == {i for p in self.pairs for i in p} - winners
        assert len(refusals) == ROUNDS
        assert {tuple(c.code.value for c in refusal.conflicts) for refusal in refusals} == {
            ("stale_version",)
        }


async def count_split_pairs(stage: Stage, arenas: list[Arena]) -> int:
    """How many pairs were answered by two different workers."""
    rows = await stage.backing.pool.fetch("SELECT incarnation, answered_by FROM requests")
    by = {row["incarnation"]: row["answered_by"] for row in rows}
    return sum(by[one] != by[two] for arena in arenas for one, two in arena.pairs)


@pytest.mark.slow
async def test_one_winner_each_time(stage: Stage) -> None:
    arenas = [Arena(stage, seed) for seed in range(WORKSPACES)]
    for arena in arenas:
        await arena.build()
    queues = [arena.queue(device_id) for arena in arenas for device_id in arena.devices]
    async with AsyncExitStack() as stack:
        for name in ("one", "two", "three"):
            worker = await stack.enter_async_context(stage.worker(name))
            await worker.wait_ready()
        await stack.enter_async_context(stage.listening(*queues))
        send = await stack.enter_async_context(stage.sending())
        await asyncio.gather(*(arena.play(send) for arena in arenas))
    for arena in arenas:
        await arena.check()
    assert await count_split_pairs(stage, arenas) >= 100

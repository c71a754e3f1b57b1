"""Makes the broker follow the desired state in PostgreSQL: one device at once when asked, all of them in a loop.

A crash between PostgreSQL and the broker leaves a difference; the loop finds and mends it, either way. So does it
when the broker was lost and came back empty.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final
from uuid import UUID

import structlog

from broker import topology
from broker.errors import HutchError, Refused, Unavailable
from broker.management import Management
from metadata.registry import DesiredDevice, Registry
from metadata.server.differences import (
    DEVICE_LIMITS,
    QUEUE_PREFIX,
    BrokerState,
    find_differences,
    routing_keys,
)

FOLLOW_TIMEOUT_S: Final = 30.0
COMPARE_EVERY_S: Final = 30.0
RETRY_EVERY_S: Final = 2.0
AT_ONCE: Final = 4
CLOSE_AGAIN_AFTER_S: Final = (0.05, 0.2, 0.5)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Follower:
    """Follows. Any number of tasks may call it at once; a device is followed by one at a time, over all processes.

    Args:
        registry: What should be.
        management: What is. Open, and of the virtual host that is ours.
        on_repaired: Called with the number of differences that a comparison mended.
        tell: Called with the queues of devices that a comparison has mended: they may have missed something meanwhile.
    """

    def __init__(
        self,
        registry: Registry,
        management: Management,
        on_repaired: Callable[[int], None] = lambda count: None,
        tell: Callable[[Mapping[UUID, str]], Awaitable[None]] | None = None,
    ) -> None:
        self._registry = registry
        self._management = management
        self._on_repaired = on_repaired
        self._tell = tell
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._poked = asyncio.Event()
        self.healthy = False
        """Whether the last comparison came through."""

    def poke(self) -> None:
        """Compare soon, rather than when it is time."""
        self._poked.set()

    async def follow(self, device_id: UUID, *, disconnect: bool = False) -> None:
        """Give one device what it should have at the broker, or take away all that it has.

        Args:
            device_id: Which. A device that is revoked, or that PostgreSQL does not know, should have nothing.
            disconnect: First close the connections that it has open: its queue takes one consumer.

        Raises:
            Unavailable: PostgreSQL or the broker did not do it in time. The loop will.
        """
        try:
            async with (
                asyncio.timeout(FOLLOW_TIMEOUT_S),
                self._turns,
                self._registry.device_state(device_id) as desired,
            ):
                if desired is None or desired.revoked:
                    await self._remove(device_id, desired)
                else:
                    await self._put(desired, disconnect)
        except (HutchError, TimeoutError) as error:
            self.poke()
            # What the broker refuses this server is nothing that a device did.
            raise Unavailable(f"the broker does not follow: {error}") from error

    async def follow_all(self, device_ids: Iterable[UUID]) -> None:
        """Follow several. One that fails is logged and left to the loop, and holds up no other."""
        waiting = list(device_ids)
        while waiting:
            batch, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
            async with asyncio.TaskGroup() as group:
                for device_id in batch:
                    group.create_task(self._follow_quietly(device_id), name=f"follow {device_id}")

    async def _follow_quietly(self, device_id: UUID) -> None:
        try:
            await self.follow(device_id)
        except Unavailable as error:
            log.warning("broker_state.delayed", device_id=str(device_id), error=str(error))

    async def _put(self, device: DesiredDevice, disconnect: bool) -> None:
        user = topology.device_user(device.device_id)
        if disconnect:
            await self._close_connections(user)
        old_queue = device.queue_name
        if await self._hears_too_much(device):
            # Notices that wait there are of a workspace that its user is no member of: it gets them no more. PostgreSQL
            # first: after a crash the old queue is nobody's, and goes.
            device = replace(device, queue_name=QUEUE_PREFIX + secrets.token_hex(16))
            await self._registry.replace_queue(device.device_id, device.queue_name)
        await self._ensure_queue(device.queue_name)
        await self._rebind(device)
        await self._management.put_user(user, device.broker_password_hash, DEVICE_LIMITS)
        await self._management.put_permissions(user, topology.device_permissions(device.queue_name))
        if device.queue_name != old_queue:
            await self._management.delete_queue(old_queue)

    async def _hears_too_much(self, device: DesiredDevice) -> bool:
        wanted = routing_keys(device)
        bindings = await self._management.list_bindings(queue=device.queue_name)
        return any(each.exchange == topology.CHANGES and each.routing_key not in wanted for each in bindings)

    async def _ensure_queue(self, name: str) -> None:
        queue = topology.device_queue(name)
        try:
            await self._management.ensure_queue(queue)
        except Refused as error:
            if error.code != "inequivalent":
                raise
            # Declared by another release. What is in it are hints: its device will ask for the changes.
            await self._management.delete_queue(name)
            await self._management.ensure_queue(queue)

    async def _rebind(self, device: DesiredDevice) -> None:
        bindings = await self._management.list_bindings(queue=device.queue_name)
        for binding in bindings:
            if binding.exchange != topology.CHANGES:
                await self._management.unbind(binding)
        there = {each.routing_key for each in bindings if each.exchange == topology.CHANGES}
        for workspace_id in device.workspace_ids:
            binding = topology.device_binding(device.queue_name, workspace_id)
            if binding.routing_key not in there:
                await self._management.bind(binding)

    async def _remove(self, device_id: UUID, device: DesiredDevice | None) -> None:
        user = topology.device_user(device_id)
        await self._management.delete_user(user)
        # Deleting closes what the broker has on record; a connection that was just being opened may not be yet.
        await self._close_connections(user)
        if device is not None:
            await self._management.delete_queue(device.queue_name)

    async def _close_connections(self, user: str) -> None:
        """Close them all, though some end by themselves meanwhile: the broker answers 500 then, half done."""
        for wait_s in CLOSE_AGAIN_AFTER_S:
            try:
                return await self._management.close_connections(user)
            except Unavailable:
                await asyncio.sleep(wait_s)
        return await self._management.close_connections(user)

    # --- all of it

    async def compare(self) -> int:
        """Compare the whole broker with the desired state, and mend it. One process at a time does.

        Returns:
            How many devices and queues were wrong.

        Raises:
            HutchError: The broker or PostgreSQL could not be asked.
        """
        async with self._registry.comparison_turn() as mine:
            if not mine:
                return 0
            await self._management.ensure_topology()
            state = await self._look()
            desired = await self._registry.desired_devices()
            found = find_differences(state, desired)
            await self.follow_all(found.devices)
            if self._tell is not None:
                mended = await self._registry.desired_devices(found.devices)
                await self._tell({each.device_id: each.queue_name for each in mended if not each.revoked})
            for queue in found.queues:
                await self._management.delete_queue(queue)
            return len(found.devices) + len(found.queues)

    async def _look(self) -> BrokerState:
        bindings: dict[str, set[str]] = {}
        for binding in await self._management.list_bindings(exchange=topology.CHANGES):
            bindings.setdefault(binding.queue, set()).add(binding.routing_key)
        return BrokerState(
            users=await self._management.list_users(),
            limits=await self._management.list_limits(),
            permissions=await self._management.list_permissions(),
            queues=frozenset(await self._management.list_queues(QUEUE_PREFIX)),
            bindings={queue: frozenset(keys) for queue, keys in bindings.items()},
        )

    async def run(self) -> None:
        """Compare at the start, when poked, and every half minute or so; sooner after a failure. Until cancelled."""
        while True:
            self._poked.clear()
            await self._compare_once()
            wait_s = (COMPARE_EVERY_S if self.healthy else RETRY_EVERY_S) * (0.75 + _jitter() / 2)
            try:
                # After a failure a poke does not shorten the wait: whoever pokes failed as well.
                async with asyncio.timeout(wait_s):
                    await (self._poked.wait() if self.healthy else asyncio.Event().wait())
            except TimeoutError:
                pass

    async def _compare_once(self) -> None:
        try:
            repaired = await self.compare()
        except HutchError as error:
            if self.healthy:
                log.warning("broker_state.lost", error=str(error))
            self.healthy = False
        else:
            if repaired or not self.healthy:
                log.info("broker_state.compared", repaired=repaired)
            self.healthy = True
            self._on_repaired(repaired)


def _jitter() -> float:
    return secrets.randbelow(1001) / 1000

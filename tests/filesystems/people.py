"""Waiting for what an agent is to come to, and what it says meanwhile."""

import asyncio
from collections.abc import Callable

from tests.agents.world import Device, World


async def until(world: World, condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Wait for a condition; what ends an agent is raised."""

    def holds() -> bool:
        for device in world.devices.values():
            device.check()
        return bool(condition())

    async with asyncio.timeout(timeout_s):
        await world._until(holds, world.devices.values())


def errors(device: Device) -> dict[str, str]:
    """What `hutch status` shows, by path."""
    return {error["path"]: error["code"] for error in device.folder.status()["errors"]}


def aliases(device: Device) -> dict[str, str]:
    """What stands under another name than its own there: path to own name."""
    return {alias["path"]: alias["name"] for alias in device.folder.status()["aliases"]}

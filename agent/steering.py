"""What a running agent can be asked to do: the commands of `agent.control`, on the agent's own methods."""

import asyncio
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from agent.control import Handler


class Steered(Protocol):
    """What of the agent can be asked for over the socket."""

    def status(self) -> dict[str, Any]: ...
    async def wait_synced(self, timeout_s: float | None) -> bool: ...
    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def add_folder(self, folder: Path, workspace_id: UUID, name: str) -> None: ...
    async def remove_folder(self, folder: Path) -> None: ...


def handlers_for(agent: Steered, stop: asyncio.Event) -> dict[str, Handler]:
    """Every command that a running agent takes. `stop` is the event that ends its `run`."""

    async def status(arguments: dict[str, Any]) -> dict[str, Any]:
        return agent.status()

    async def wait(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"synced": await agent.wait_synced(arguments.get("timeout_s"))}

    async def pause(arguments: dict[str, Any]) -> dict[str, Any]:
        await agent.pause()
        return {}

    async def resume(arguments: dict[str, Any]) -> dict[str, Any]:
        await agent.resume()
        return {}

    async def add(arguments: dict[str, Any]) -> dict[str, Any]:
        await agent.add_folder(
            Path(arguments["folder"]), UUID(arguments["workspace_id"]), str(arguments["name"])
        )
        return {}

    async def remove(arguments: dict[str, Any]) -> dict[str, Any]:
        await agent.remove_folder(Path(arguments["folder"]))
        return {}

    async def stop_agent(arguments: dict[str, Any]) -> dict[str, Any]:
        stop.set()
        return {}

    return {
        "status": status,
        "wait": wait,
        "pause": pause,
        "resume": resume,
        "add": add,
        "remove": remove,
        "stop": stop_agent,
    }

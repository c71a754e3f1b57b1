"""Asking the running agent, when there is one."""

from typing import Any

from agent.control import call
from agent.errors import NotRunning
from agent.home import Home


async def tell_agent(home: Home, command: str, **arguments: Any) -> bool:
    """Have the running agent do something; False when none runs. Raises what the agent raises."""
    try:
        await call(home.socket_path, command, **arguments)
    except NotRunning:
        return False
    return True


async def agent_status(home: Home) -> dict[str, Any] | None:
    """What the running agent says of itself; None when none runs."""
    try:
        return await call(home.socket_path, "status")
    except NotRunning:
        return None

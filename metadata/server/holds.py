"""What the guard holds of a user's devices: shown, accepted, or to be undone."""

from typing import Any
from uuid import UUID

import structlog
from aiohttp import web
from msgspec import Struct

from broker.connection import Publisher
from broker.errors import HutchError, Refused
from broker.messages import HoldDecided, encode
from metadata.registry import Credential, HeldCommit
from metadata.server.answers import json_answer, path_id, read_json
from metadata.server.linking import check_password
from metadata.server.services import SERVICES
from metadata.server.workspaces import HINT_TIMEOUT_S

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class AcceptRequest(Struct):
    """The body of `POST …/holds/{hold_id}/accept`. The device that is held has to bring the account's password."""

    password: str | None = None

    def __repr__(self) -> str:
        return "AcceptRequest(…)"


def describe(held: HeldCommit, caller: UUID) -> dict[str, Any]:
    """A held commit as the protocol writes it."""
    return {
        "hold_id": held.hold_id,
        "workspace_id": held.workspace_id,
        "device_id": held.device_id,
        "device_name": held.device_name,
        "current": held.device_id == caller,
        "verdict": held.verdict,
        "held_at": held.held_at,
        "deleted": held.deleted,
        "rewritten": held.rewritten,
        "to_follow": held.to_follow,
        "recent": held.recent,
        "deleted_paths": list(held.deleted_paths),
        "rewritten_paths": list(held.rewritten_paths),
    }


async def list_holds(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`GET /v1/workspaces/{id}/holds`: those of the user's own devices."""
    registry = request.app[SERVICES].registry
    workspace = await registry.workspace_of_member(path_id(request), caller.user_id)
    holds = await registry.list_holds(workspace.workspace_id, caller.user_id)
    return json_answer({"holds": [describe(held, caller.device_id) for held in holds]})


async def accept_hold(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`POST /v1/workspaces/{id}/holds/{hold_id}/accept`.

    The device that is held cannot say yes by itself: whoever has taken it over has its credential, and not the
    person's password, nor another device.
    """
    services = request.app[SERVICES]
    workspace_id, hold_id = path_id(request), path_id(request, "hold_id")
    password = (await read_json(request, AcceptRequest)).password
    await services.registry.workspace_of_member(workspace_id, caller.user_id)
    holds = await services.registry.list_holds(workspace_id, caller.user_id)
    if any(held.hold_id == hold_id and held.device_id == caller.device_id for held in holds):
        if password is None:
            raise Refused(
                "this device is the one that is held: give the account's password, or accept it on another device",
                "wrong_password",
            )
        await check_password(services, caller.email, password)
    held = await services.registry.accept_hold(workspace_id, hold_id, caller.user_id)
    return await _answer(services.publisher, held, caller)


async def undo_hold(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`POST /v1/workspaces/{id}/holds/{hold_id}/undo`. Loses nothing, so any device of the user's may say so."""
    services = request.app[SERVICES]
    workspace_id, hold_id = path_id(request), path_id(request, "hold_id")
    await services.registry.workspace_of_member(workspace_id, caller.user_id)
    held = await services.registry.undo_hold(workspace_id, hold_id, caller.user_id)
    return await _answer(services.publisher, held, caller)


async def release_hold(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`DELETE /v1/workspaces/{id}/holds/{hold_id}`: the held device has undone it. What is not to be undone stays."""
    await request.app[SERVICES].registry.release_hold(path_id(request, "hold_id"), caller.device_id)
    return web.Response(status=204)


async def _answer(publisher: Publisher, held: HeldCommit, caller: Credential) -> web.StreamResponse:
    log.info(
        "hold.decided",
        workspace_id=str(held.workspace_id),
        device_id=str(held.device_id),
        user_id=str(caller.user_id),
        verdict=held.verdict,
    )
    try:
        body = encode(HoldDecided(workspace_id=held.workspace_id))
        await publisher.publish("", held.queue_name, body, timeout_s=HINT_TIMEOUT_S)
    except HutchError as error:  # it asks by itself every few minutes
        log.warning("hold_notice.lost", device_id=str(held.device_id), error=str(error))
    return json_answer(describe(held, caller.device_id))

"""A user's workspaces: which there are, where their journals stand, and new ones."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web
from msgspec import Struct

from broker.connection import Publisher
from broker.errors import HutchError, Refused
from broker.messages import MembershipChanged, encode
from metadata.accounts import label_problem
from metadata.registry import Credential, Workspace
from metadata.server.answers import json_answer, read_json
from metadata.server.services import SERVICES

HINT_TIMEOUT_S = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class MakeWorkspaceRequest(Struct):
    """The body of `POST /v1/workspaces`."""

    name: str


def describe(workspace: Workspace) -> dict[str, Any]:
    """A workspace as the protocol writes it."""
    return {
        **describe_head(workspace),
        "name": workspace.name,
        "role": workspace.role,
        "owner": workspace.owner,
    }


def describe_head(workspace: Workspace) -> dict[str, Any]:
    """Where a workspace's journal stands, as the protocol writes it."""
    return {
        "workspace_id": workspace.workspace_id,
        "epoch": workspace.head.epoch,
        "seq": workspace.head.seq,
        "chain": workspace.head.chain.hex(),
    }


async def list_heads(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`GET /v1/heads`."""
    workspaces = await request.app[SERVICES].registry.workspaces_of(caller.user_id)
    return json_answer({"workspaces": [describe_head(each) for each in workspaces]})


async def list_workspaces(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`GET /v1/workspaces`."""
    workspaces = await request.app[SERVICES].registry.workspaces_of(caller.user_id)
    return json_answer({"workspaces": [describe(each) for each in workspaces]})


async def make_workspace(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`POST /v1/workspaces`: the user's own of that name, made when there is none.

    Asked again, it finishes what an earlier call could not (the broker was away), and tells the others again.
    """
    services = request.app[SERVICES]
    name = (await read_json(request, MakeWorkspaceRequest)).name
    if problem := label_problem(name):
        raise Refused(f"a workspace cannot be called so: {problem}", "bad_name")
    workspace, made = await services.registry.make_workspace(caller.user_id, name)
    if made:
        log.info("workspace.made", workspace_id=str(workspace.workspace_id), user_id=str(caller.user_id))
    await services.follower.follow(caller.device_id)
    devices = await services.registry.member_devices(workspace.workspace_id)
    others = {device_id: queue for device_id, queue in devices.items() if device_id != caller.device_id}
    await services.follower.follow_all(others)
    await tell_membership(services.publisher, others)
    return json_answer(describe(workspace))


async def tell_membership(publisher: Publisher, queues: Mapping[UUID, str]) -> None:
    """Have devices compare heads. A hint, no more: a device that misses it does so every quarter of an hour."""
    body = encode(MembershipChanged())
    for device_id, queue in queues.items():
        try:
            await publisher.publish("", queue, body, timeout_s=HINT_TIMEOUT_S)
        except HutchError as error:
            log.warning("membership_notice.lost", device_id=str(device_id), error=str(error))

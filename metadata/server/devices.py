"""A user's devices: which there are, and cutting one off."""

import structlog
from aiohttp import web

from metadata.registry import Credential
from metadata.server.answers import json_answer, path_id
from metadata.server.services import SERVICES

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def list_devices(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`GET /v1/devices`."""
    devices = await request.app[SERVICES].registry.list_devices(caller.user_id)
    described = [
        {
            "device_id": device.device_id,
            "name": device.name,
            "created_at": device.created_at,
            "seen_at": device.seen_at,
            "current": device.device_id == caller.device_id,
        }
        for device in devices
    ]
    return json_answer({"devices": described})


async def revoke_device(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`DELETE /v1/devices/{id}`: cut off over HTTP from PostgreSQL's commit on, at the broker before the answer.

    When the broker is away the answer is 503, the device is revoked all the same, and the loop tells the broker.
    """
    services = request.app[SERVICES]
    device_id = path_id(request)
    await services.registry.revoke_device(device_id, caller.user_id)
    log.info("device.revoked", device_id=str(device_id), user_id=str(caller.user_id))
    await services.follower.follow(device_id)
    return web.Response(status=204)

"""Linking a device to an account, and its session: what it needs to know before it begins to consume."""

import asyncio
import secrets
from uuid import UUID, uuid4

import structlog
from aiohttp import web
from msgspec import Struct

from broker.errors import HutchError, Refused
from broker.management import hash_password
from metadata.accounts import (
    MAX_PASSWORD_LENGTH,
    email_problem,
    fold_email,
    hash_secret,
    label_problem,
    make_secret,
)
from metadata.registry import Account, Credential, NewDevice
from metadata.server.answers import json_answer, read_json
from metadata.server.differences import QUEUE_PREFIX
from metadata.server.services import SERVICES, Services
from metadata.server.workspaces import describe

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class LinkRequest(Struct):
    """The body of `POST /v1/link`. `platform` is the device's own word for what it is; it is not kept."""

    email: str
    password: str
    device_name: str
    platform: str = ""

    def __repr__(self) -> str:
        return "LinkRequest(…)"


async def link(request: web.Request) -> web.StreamResponse:
    """`POST /v1/link`: make a device of the account, and its place at the broker. The only call that tells secrets."""
    services = request.app[SERVICES]
    body = await read_json(request, LinkRequest)
    if problem := label_problem(body.device_name):
        raise Refused(f"the device cannot be called so: {problem}", "bad_name")
    account = await check_password(services, fold_email(body.email), body.password)
    secret, amqp_password = make_secret(), make_secret()
    device = NewDevice(
        device_id=uuid4(),
        user_id=account.user_id,
        name=body.device_name,
        secret_hash=hash_secret(secret),
        broker_password_hash=hash_password(amqp_password),
        queue_name=QUEUE_PREFIX + secrets.token_hex(16),
    )
    await _install(services, device)
    log.info("device.linked", device_id=str(device.device_id), user_id=str(account.user_id))
    session = await _session(services, device.device_id, account.user_id, account.email, device.queue_name)
    return json_answer({**session, "device_secret": secret, "amqp_password": amqp_password})


async def open_session(request: web.Request, caller: Credential) -> web.StreamResponse:
    """`POST /v1/session`: close what the device has open at the broker, mend what it has there, say where all is."""
    services = request.app[SERVICES]
    await services.follower.follow(caller.device_id, disconnect=True)
    session = await _session(services, caller.device_id, caller.user_id, caller.email, caller.queue_name)
    return json_answer(session)


async def check_password(services: Services, email: str, password: str) -> Account:
    """The account of a folded address, if this is its password.

    Raises:
        Refused: With code `wrong_password` (an unknown account looks and takes the same) or `too_many_tries`.
    """
    now_s = asyncio.get_running_loop().time()
    if not services.tries.begin(email, now_s):
        raise Refused("too many wrong passwords for this account: wait a minute", "too_many_tries")
    usable = email_problem(email) is None and len(password) <= MAX_PASSWORD_LENGTH
    account = await services.registry.user_by_email(email) if usable else None
    right = await services.passwords.verify(
        account.password_hash if account else None, password[:MAX_PASSWORD_LENGTH]
    )
    if account is None or not right:
        services.metrics.wrong_passwords.inc()
        raise Refused("the e-mail address or the password is wrong", "wrong_password")
    services.tries.succeed(email, now_s)
    return account


async def _install(services: Services, device: NewDevice) -> None:
    """Desired state first, then the broker. What the device can never use, since it is not told, is revoked."""
    await services.registry.add_device(device)
    try:
        await services.follower.follow(device.device_id)
    except BaseException:
        # Shielded: a caller who hangs up ends this task, and must not leave a device that nobody has.
        await asyncio.shield(_take_back(services, device.device_id))
        raise


async def _take_back(services: Services, device_id: UUID) -> None:
    try:
        await services.registry.revoke_device(device_id)
    except HutchError as error:
        log.warning("device.left", device_id=str(device_id), error=str(error))
    services.follower.poke()


async def _session(
    services: Services, device_id: UUID, user_id: UUID, email: str, queue: str
) -> dict[str, object]:
    workspaces = await services.registry.workspaces_of(user_id)
    return {
        "device_id": device_id,
        "user_id": user_id,
        "email": email,
        "gateway_url": services.settings.public_gateway_url,
        "amqp_url": services.settings.public_amqp_url,
        "queue": queue,
        "workspaces": [describe(each) for each in workspaces],
    }

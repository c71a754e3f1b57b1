"""A metadata server that knows one account, on a thread and a loop of its own; over TLS when it is given a certificate."""

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web

EMAIL = "anna@example.org"
PASSWORD = "correct horse"
STARTED_WITHIN_S = 20


@dataclass
class FakeService:
    """What it was told, and what it answers. `ca` is the PEM that it shows."""

    ca: bytes | None = None
    port: int = 0
    scheme: str = "http"
    passwords: list[str] = field(default_factory=list)
    devices: dict[UUID, str] = field(default_factory=dict)
    workspaces: dict[str, UUID] = field(default_factory=dict)
    holds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/v1/ca", self._ca)
        app.router.add_post("/v1/link", self._link)
        app.router.add_post("/v1/workspaces", self._workspace)
        app.router.add_get("/v1/devices", self._devices)
        app.router.add_get("/v1/workspaces", self._workspaces)
        app.router.add_get("/v1/workspaces/{id}/holds", self._holds)
        app.router.add_post("/v1/workspaces/{id}/holds/{hold}/{what}", self._decide)
        app.router.add_delete("/v1/devices/{id}", self._revoke)
        return app

    async def _live(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _ca(self, request: web.Request) -> web.Response:
        return web.Response(body=self.ca) if self.ca else _refusal(404, "not_found")

    async def _link(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.passwords.append(body["password"])
        if (body["email"], body["password"]) != (EMAIL, PASSWORD):
            return _refusal(403, "wrong_password")
        device_id = uuid4()
        self.devices[device_id] = body["device_name"]
        return web.json_response(
            {
                "device_id": str(device_id),
                "user_id": str(UUID(int=2)),
                "email": EMAIL,
                "gateway_url": self.url,
                "amqp_url": "amqp://127.0.0.1:9/hutch",
                "queue": "device.0",
                "workspaces": [],
                "device_secret": "s3cret",
                "amqp_password": "s3cret too",
            }
        )

    async def _workspace(self, request: web.Request) -> web.Response:
        if self._asking(request) is None:
            return _refusal(401, "forbidden")
        name = (await request.json())["name"]
        return web.json_response(_describe(name, self.workspaces.setdefault(name, uuid4())))

    async def _workspaces(self, request: web.Request) -> web.Response:
        return web.json_response({"workspaces": [_describe(*each) for each in self.workspaces.items()]})

    async def _holds(self, request: web.Request) -> web.Response:
        own = [hold for hold in self.holds if hold["workspace_id"] == request.match_info["id"]]
        return web.json_response({"holds": own})

    async def _decide(self, request: web.Request) -> web.Response:
        what, hold_id = request.match_info["what"], request.match_info["hold"]
        hold = next((hold for hold in self.holds if hold["hold_id"] == hold_id), None)
        if hold is None:
            return _refusal(404, "not_found")
        if what == "accept":
            password = (await request.json()).get("password")
            self.passwords.append(password)
            if hold["current"] and password != PASSWORD:
                return _refusal(403, "wrong_password")
        hold["verdict"] = {"accept": "accepted", "undo": "undone"}[what]
        return web.json_response(hold)

    async def _devices(self, request: web.Request) -> web.Response:
        asking = self._asking(request)
        rows = [
            {"device_id": str(i), "name": name, "created_at": "2024-05-06T07:08:09Z", "current": i == asking}
            for i, name in self.devices.items()
        ]
        return web.json_response({"devices": rows}) if asking else _refusal(401, "forbidden")

    async def _revoke(self, request: web.Request) -> web.Response:
        if self._asking(request) is None:
            return _refusal(401, "forbidden")
        self.devices.pop(UUID(request.match_info["id"]))
        return web.Response(status=204)

    def _asking(self, request: web.Request) -> UUID | None:
        device_id, _, secret = request.headers.get("Authorization", "").removeprefix("Bearer ").partition(".")
        known = secret == "s3cret" and UUID(device_id) in self.devices
        return UUID(device_id) if known else None


def _describe(name: str, workspace_id: UUID) -> dict[str, Any]:
    return {
        "workspace_id": str(workspace_id),
        "name": name,
        "role": "owner",
        "owner": EMAIL,
        "epoch": 1,
        "seq": 0,
        "chain": "0" * 64,
    }


def _refusal(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"code": code, "message": f"refused: {code}"}))


@contextmanager
def serving(certificate: Path | None = None, key: Path | None = None) -> Iterator[FakeService]:
    """The service, for as long as the block runs."""
    service = FakeService()
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        service.scheme = "https"
    with looping() as loop:
        runner = web.AppRunner(service.app(), shutdown_timeout=1)

        async def start() -> None:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            service.port = runner.addresses[0][1]

        asyncio.run_coroutine_threadsafe(start(), loop).result(STARTED_WITHIN_S)
        try:
            yield service
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(STARTED_WITHIN_S)


@contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop on a thread of its own: the command line under test runs its own loop in this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="other side", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STARTED_WITHIN_S)
        loop.close()

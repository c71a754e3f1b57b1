"""Is a server ready? An open port is not yet an answer, so each is asked in its own language."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import struct
from collections.abc import Mapping

_TIMEOUT_S = 2.0


def http_status(
    address: str,
    port: int,
    path: str,
    *,
    credentials: tuple[str, str] | None = None,
    tls: bool = False,
    put: Mapping[str, str] | None = None,
) -> int | None:
    """The status of a GET (of a PUT, when there is something to put, as JSON), or None when nobody answers.

    Goes straight to the address, past any proxy.
    """
    connection: http.client.HTTPConnection
    if tls:
        # The certificate names the public host, not the address that we knock at, and nothing secret is sent.
        unverified = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(address, port, timeout=_TIMEOUT_S, context=unverified)
    else:
        connection = http.client.HTTPConnection(address, port, timeout=_TIMEOUT_S)
    headers = {}
    if credentials is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
    try:
        if put is None:
            connection.request("GET", path, headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request("PUT", path, json.dumps(put), headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def postgres_accepts(port: int, user: str, database: str) -> bool:
    """Whether PostgreSQL takes connections: it asks for the password, rather than say that it is starting up.

    Source: PostgreSQL documentation, Frontend/Backend Protocol, StartupMessage and AuthenticationRequest.
    """
    parameters = b"".join(
        f"{key}\0{value}\0".encode() for key, value in (("user", user), ("database", database))
    )
    message = struct.pack("!I", 196_608) + parameters + b"\0"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(struct.pack("!I", len(message) + 4) + message)
            return connection.recv(1) == b"R"
    except OSError:
        return False


def answers(address: str, port: int) -> bool:
    """Whether somebody listens."""
    try:
        with socket.create_connection((address, port), timeout=_TIMEOUT_S):
            return True
    except OSError:
        return False

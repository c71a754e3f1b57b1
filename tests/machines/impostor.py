"""Somebody who poses as the service: `python impostor.py ADDRESS PORTS CERTIFICATE KEY AUTHORITY HEARD`.

Listens on all of the ports (comma-separated) over TLS, and with `-` for a certificate in the clear. Answers
`GET /v1/ca` with the file AUTHORITY and everything else with nonsense, and appends all that it could read to HEARD.
Uses the standard library alone.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

ANSWER = "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"


async def main(address: str, ports: str, certificate: str, key: str, authority: str, heard: str) -> None:
    """Listen until killed; says `listening` on stdout once it does."""
    context = None
    if certificate != "-":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    pem = Path(authority).read_bytes()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read(65_536)
        with Path(heard).open("ab") as file:
            file.write(said)
        asks = said.startswith(b"GET /v1/ca")
        body = pem if asks else b'{"code": "retry"}'
        writer.write(ANSWER.format(status="200 OK" if asks else "503 No", size=len(body)).encode() + body)
        await writer.drain()
        writer.close()

    servers = [
        await asyncio.start_server(serve, address, int(port), ssl=context) for port in ports.split(",")
    ]
    print("listening", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

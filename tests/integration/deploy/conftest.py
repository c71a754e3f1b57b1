"""A checkout of its own for each module: our `deploy/` and servers with small stand-ins for the programs.

What is tested here is that programs are started, watched and ended, whatever they do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy import bootstrap, processes

_PROGRAM = """
import http.server, json, os, pathlib, signal, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({key: value for key, value in os.environ.items() if key.startswith("HUTCH_")}).encode()
        self.send_response(200 if self.path.startswith("/health/") else 404)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
listen = next(value for key, value in os.environ.items() if key.endswith("_LISTEN"))
address, _, port = listen.rpartition(":")
server = http.server.ThreadingHTTPServer((address, int(port)), Answer)
certificate = next((value for key, value in os.environ.items() if key.endswith("_TLS_CERT")), None)
if certificate is not None:
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, next(value for key, value in os.environ.items() if key.endswith("_TLS_KEY")))
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Local:
    """`deploy/local` of one checkout, with one data folder."""

    checkout: Path
    data: Path

    def run(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of it to its end."""
        done = subprocess.run(
            ["/usr/bin/env", "python3", str(self.checkout / "deploy" / "local"), *arguments, "--data", str(self.data)],
            capture_output=True, text=True, cwd="/", timeout=240,
        )  # fmt: skip
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self, *arguments: str) -> dict[str, Any]:
        """Start all, and return what scripts are told."""
        told: dict[str, Any] = json.loads(self.run("up", "--json", *arguments).stdout)
        return told

    def status(self) -> dict[str, Any]:
        """What runs now."""
        told: dict[str, Any] = json.loads(self.run("status", "--json", ok=False).stdout)
        return told

    def strays(self) -> list[processes.Identity]:
        """Every process of this stack that lives."""
        return [*processes.find_strays(self.data), *processes.find_inside(self.data / "postgres" / "data")]


def make_checkout(folder: Path) -> Path:
    """A copy of what `deploy/local` needs, with stand-ins for the programs, on this checkout's environment."""
    for name in ("broker", "deploy", "rabbitmq"):
        shutil.copytree(
            bootstrap.CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(bootstrap.CHECKOUT / name, folder)
    for module in ("metadata/server/__main__.py", "block_gateway/__main__.py", "sync_workers/__main__.py"):
        path = folder / module
        path.parent.mkdir(parents=True)
        path.write_text(_PROGRAM)
        for package in {module.split("/")[0], str(Path(module).parent)}:
            (folder / package / "__init__.py").touch()  # else the real one, also on the path, goes before it
    (folder / "metadata" / "migrate.py").write_text("import os; assert os.environ['HUTCH_POSTGRES_DSN']")
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(bootstrap.VENV / name)
    stamped = "from deploy import bootstrap; bootstrap._STAMP.write_text(bootstrap._fingerprint())"
    subprocess.run(["python3", "-c", stamped], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A checkout and a data folder, both with spaces in their paths. All of it is down at the end."""
    checkout = make_checkout(tmp_path_factory.mktemp("a checkout"))
    one = Local(checkout, Path(os.path.realpath(tmp_path_factory.mktemp("the data") / "of hutch")))
    try:
        yield one
    finally:
        one.run("down", ok=False)
        assert one.strays() == []

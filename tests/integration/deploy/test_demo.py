"""The README's first command, as a newcomer runs it: real servers, the real programs, two real agents."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import bootstrap, processes
from deploy.talk import say

DEMO = [str(bootstrap.CHECKOUT / "deploy" / "local"), "demo"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with a space in its path; no process of it is left at the end."""
    folder = Path(os.path.realpath(tmp_path_factory.mktemp("the demo")))
    yield folder
    subprocess.run([DEMO[0], "down", "--data", str(folder)], check=True)
    assert processes.find_strays(folder) == []


def test_once_shows_its_changes_arrive_and_takes_all_down(data: Path) -> None:
    done = subprocess.run([*DEMO, "--once", "--data", str(data)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "saved notes.txt",
        "made folder Trip",
        "moved notes.txt → Trip/list.txt",
        "deleted Trip/photo.raw",
    ):
        assert line in done.stdout
    for device in ("Laptop", "Desktop"):
        assert f"{data}/demo/{device} folder" in done.stdout
        assert (
            data / "demo" / f"{device} folder" / "Trip" / "list.txt"
        ).read_text() == "Buy carrots and hay.\n"
    assert processes.find_strays(data) == []


def test_it_tells_what_a_person_does_until_it_is_interrupted(data: Path) -> None:
    """It goes on with the account and the devices of the run before, also where the service had to move meanwhile."""
    kept = json.loads((data / "ports.json").read_text())
    taken = socket.create_server(("127.0.0.1", kept["metadata"]))
    command = [*DEMO, "--new-ports", "--data", str(data)]
    with taken, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C ends it" in line:
                (data / "demo" / "Laptop folder" / "hello.txt").write_text("Hello!\n")
            if "saved hello.txt" in line:
                process.send_signal(signal.SIGINT)
                break
        say(process.stdout.read())
        assert process.wait(timeout=60) == 0
    assert (data / "demo" / "Desktop folder" / "hello.txt").read_text() == "Hello!\n"
    assert processes.find_strays(data) == []

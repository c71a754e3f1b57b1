"""A service whose ports other programs have taken moves, and devices that run follow it by themselves."""

import contextlib
import json
import socket
import sys
from pathlib import Path

import pytest

from deploy import bootstrap
from tests.e2e.device import run
from tests.e2e.stack import running_stack, settle

TIMEOUT_S = 120.0
LOCAL = bootstrap.CHECKOUT / "deploy" / "local"


@pytest.mark.timeout(400)
def test_running_agents_follow_gateway_and_broker_to_other_ports() -> None:
    with running_stack(workers=1) as stack:
        laptop, desktop = stack.add_pair()[1:]
        laptop.write("before.txt", b"before")
        settle(laptop, desktop, timeout_s=TIMEOUT_S)
        run([sys.executable, str(LOCAL), "down", "--data", str(stack.data)], {})
        laptop.write("meanwhile.txt", b"meanwhile")
        kept = json.loads((stack.data / "ports.json").read_text())
        with contextlib.ExitStack() as taken:
            for name in ("gateway", "amqp"):
                taken.enter_context(socket.create_server(("127.0.0.1", kept[name])))
            up = [sys.executable, str(LOCAL), "up", "--json", "--new-ports", "--data", str(stack.data)]
            before, stack.told = stack.told, json.loads(run(up, {}))
            assert stack.told["metadata_url"] == before["metadata_url"]
            assert stack.told["gateway_url"] != before["gateway_url"]
            desktop.write("after.txt", b"after")
            settle(laptop, desktop, timeout_s=TIMEOUT_S)
        assert {path.name for path in Path(laptop.folder).glob("*.txt")} == {
            "before.txt", "meanwhile.txt", "after.txt",
        }  # fmt: skip

"""What stands in the broker, and what is written about it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from uuid import uuid4

import pytest

from broker import topology
from broker.errors import Misconfigured
from broker.management import Management, hash_password

ROOT = Path(__file__).parents[3]


def test_the_definitions_for_operators_are_the_topology():
    written = json.loads((ROOT / "rabbitmq" / "definitions.json").read_text())
    assert written == topology.definitions(), "python -m broker.topology > rabbitmq/definitions.json"


def test_the_readme_has_a_row_for_each_queue_with_its_bounds():
    text = (ROOT / "rabbitmq" / "README.md").read_text()
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `([^`]+)`.*$", text, re.MULTILINE)}
    queues = {queue.name: queue for queue in topology.QUEUES}
    queues["device.<random>"] = topology.device_queue("device.<random>")
    assert rows.keys() == queues.keys()
    for name, queue in queues.items():
        assert f"| {queue.arguments['x-queue-type']} |" in rows[name]
    assert f"{topology.MAX_REQUESTS:,} messages" in rows[topology.REQUESTS]
    assert f"after {topology.DELIVERY_LIMIT} redeliveries" in rows[topology.REQUESTS]
    assert f"{topology.DEVICE_QUEUE_SIZE_BYTES // 1024**2} MiB" in rows["device.<random>"]
    assert f"{topology.DEVICE_QUEUE_EXPIRY_MS // (24 * 3600 * 1000)} days" in rows["device.<random>"]


def test_a_dead_letter_is_never_lost_between_two_queues():
    requests = next(queue for queue in topology.QUEUES if queue.name == topology.REQUESTS)
    # RabbitMQ falls back to at-most-once, without a word, unless all three stand together.
    assert requests.arguments["x-dead-letter-strategy"] == "at-least-once"
    assert requests.arguments["x-overflow"] == "reject-publish"
    assert requests.arguments["x-queue-type"] == "quorum"


@pytest.mark.parametrize("name", ["device.ab", "hutch.requests"])
def test_a_devices_rights_are_for_whole_names(name: str):
    rights = topology.device_permissions("device.a")
    assert re.search(rights["read"], "device.a")
    assert not re.search(rights["read"], name)
    assert not re.search(rights["read"], "deviceXa")
    assert re.search(rights["write"], topology.REQUESTS)
    assert not re.search(rights["write"], "hutch.requests2")
    assert not re.search(rights["configure"], "anything")


def test_a_device_is_bound_by_its_workspaces_id():
    workspace_id = uuid4()
    assert topology.device_binding("device.a", workspace_id).routing_key == str(workspace_id)


def test_a_password_is_salted_and_hashed_as_the_broker_does_it():
    raw = base64.b64decode(hash_password("pässword"))
    assert raw[4:] == hashlib.sha256(raw[:4] + "pässword".encode()).digest()
    assert hash_password("pässword") != hash_password("pässword")


@pytest.mark.parametrize("url", ["http://host:15672", "ftp://u:p@host", ""])
def test_a_management_address_without_credentials_is_a_wrong_setting(url: str):
    with pytest.raises(Misconfigured):
        Management(url)

"""The management API's client, and the definitions for operators, on a real broker."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from yarl import URL

from broker import topology
from broker.errors import Misconfigured, NotFound, Refused, Unavailable
from broker.management import Management, hash_password
from broker.topology import Binding, Queue
from tests.integration.broker.conftest import Cell
from tests.servers.fixtures import RabbitMQServer


def _strip_names(definitions: dict[str, list[dict[str, object]]], vhost: str) -> dict[str, list[str]]:
    kinds = ("exchanges", "queues", "bindings")
    return {
        kind: sorted(json.dumps(thing, sort_keys=True).replace(vhost, "V") for thing in definitions[kind])
        for kind in kinds
    }


async def test_imported_definitions_are_what_the_service_declares(
    cell: Cell, rabbitmq_server: RabbitMQServer
):
    imported = f"imported-{uuid4()}"
    text = json.dumps(topology.definitions()).replace(
        f'"vhost": "{topology.VHOST}"', f'"vhost": "{imported}"'
    )
    definitions = {**json.loads(text), "vhosts": [{"name": imported}]}
    rabbitmq_server.call("POST", "/api/definitions", definitions)
    here, there = (
        _strip_names(json.loads(rabbitmq_server.call("GET", f"/api/definitions/{vhost}")), vhost)
        for vhost in (imported, cell.vhost)
    )
    assert here == there
    assert len(here["queues"]) == len(topology.QUEUES)


async def test_declaring_again_changes_nothing(cell: Cell):
    await cell.management.ensure_topology()
    assert set(await cell.management.list_queues("hutch.")) == {queue.name for queue in topology.QUEUES}
    assert await cell.management.list_bindings(exchange=topology.REQUESTS) == [topology.BINDINGS[0]]


async def test_a_lost_vhost_is_made_again_with_the_right_to_use_it(rabbitmq_server: RabbitMQServer):
    async with Management(rabbitmq_server.management_url, f"lost/{uuid4()}") as management:
        await management.ensure_topology()
        assert len(await management.list_queues()) == len(topology.QUEUES)


async def test_a_device_is_bound_and_unbound(cell: Cell):
    queue = topology.device_queue(f"device.{uuid4().hex}")
    bindings = [topology.device_binding(queue.name, uuid4()) for _ in range(3)]
    await cell.management.ensure_queue(queue)
    for binding in [*bindings, bindings[0]]:
        await cell.management.bind(binding)
    await cell.management.unbind(bindings[1])
    await cell.management.unbind(bindings[1])
    found = await cell.management.list_bindings(queue=queue.name)
    assert {binding.routing_key for binding in found} == {bindings[0].routing_key, bindings[2].routing_key}
    assert await cell.management.list_queues("device.") == [queue.name]
    await cell.management.delete_queue(queue.name)
    await cell.management.delete_queue(queue.name)
    assert await cell.management.list_queues("device.") == []


async def test_what_is_not_there_cannot_be_bound(cell: Cell):
    with pytest.raises(NotFound):
        await cell.management.bind(topology.device_binding("device.nowhere", uuid4()))


async def test_a_queue_that_stands_is_not_made_another(cell: Cell):
    with pytest.raises(Refused) as refused:
        await cell.management.ensure_queue(Queue(name=topology.REQUESTS))
    assert refused.value.code == "inequivalent"


async def test_names_are_names_and_not_paths(cell: Cell):
    name = "a/../b ?#%2F"
    await cell.management.ensure_queue(Queue(name=name, arguments={"x-queue-type": "classic"}))
    binding = Binding(exchange=topology.CHANGES, queue=name, routing_key="k/ 1%")
    await cell.management.bind(binding)
    assert await cell.management.list_bindings(queue=name) == [binding]
    await cell.management.unbind(binding)
    assert await cell.management.list_bindings(queue=name) == []
    assert name in await cell.management.list_queues()


async def test_users_come_and_go(cell: Cell):
    name, hashed = f"user-{uuid4()}", hash_password("secret")
    await cell.management.put_user(name, hashed, {"max-connections": 1})
    assert (await cell.management.list_users())[name] == hashed
    await cell.management.delete_user(name)
    await cell.management.delete_user(name)
    await cell.management.close_connections(name)
    assert name not in await cell.management.list_users()


async def test_a_wrong_password_is_told_from_a_broker_that_is_away(cell: Cell):
    url = URL(cell.management_url)
    async with Management(str(url.with_password("wrong")), cell.vhost) as management:
        with pytest.raises(Misconfigured):
            await management.list_users()
    async with Management(str(url.with_port(1)), cell.vhost) as management:
        with pytest.raises(Unavailable):
            await management.list_users()

"""Where the broker is not what PostgreSQL says it should be: pure, so that it can be tried on tables of cases."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from broker import topology
from metadata.registry import DesiredDevice

QUEUE_PREFIX = "device."
DEVICE_LIMITS = {
    "max-connections": topology.DEVICE_MAX_CONNECTIONS,
    "max-channels": topology.DEVICE_MAX_CHANNELS,
}


@dataclass(frozen=True, kw_only=True)
class BrokerState:
    """What stands in the broker. Passwords' hashes are secrets of sorts: they do not print.

    Attributes:
        users: Password hash by name: all users of the broker, whosever.
        limits: By user.
        permissions: By user, in our virtual host.
        queues: Names of the queues with the devices' prefix.
        bindings: Routing keys from the exchange of changes, by queue.
    """

    users: Mapping[str, str] = field(repr=False)
    limits: Mapping[str, Mapping[str, int]]
    permissions: Mapping[str, Mapping[str, str]]
    queues: frozenset[str]
    bindings: Mapping[str, frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What to do. `devices`: follow each; they are wrong, or nobody's. `queues`: nobody's, delete them."""

    devices: tuple[UUID, ...]
    queues: tuple[str, ...]


def find_differences(state: BrokerState, desired: Iterable[DesiredDevice]) -> Differences:
    """Compare, over the names that are ours alone.

    Ours are users named by a UUID that may do something in our virtual host (another's may hold devices of another
    service), and queues with the devices' prefix. `state` must have been read before `desired`, or a device that
    was linked in between would look like nobody's.
    """
    wrong: list[UUID] = []
    known_users: set[str] = set()
    known_queues: set[str] = set()
    for device in desired:
        known_users.add(topology.device_user(device.device_id))
        known_queues.add(device.queue_name)
        if not (_is_gone(state, device) if device.revoked else _stands(state, device)):
            wrong.append(device.device_id)
    orphans = [user for name in state.permissions if name not in known_users and (user := _device_of(name))]
    return Differences(devices=(*wrong, *orphans), queues=tuple(sorted(state.queues - known_queues)))


def _is_gone(state: BrokerState, device: DesiredDevice) -> bool:
    return topology.device_user(device.device_id) not in state.users and device.queue_name not in state.queues


def _stands(state: BrokerState, device: DesiredDevice) -> bool:
    user = topology.device_user(device.device_id)
    return (
        state.users.get(user) == device.broker_password_hash
        and state.limits.get(user) == DEVICE_LIMITS
        and state.permissions.get(user) == topology.device_permissions(device.queue_name)
        and device.queue_name in state.queues
        and state.bindings.get(device.queue_name, frozenset()) == routing_keys(device)
    )


def routing_keys(device: DesiredDevice) -> frozenset[str]:
    """The keys by which a live device's queue should be bound to the exchange of changes."""
    bindings = (topology.device_binding(device.queue_name, each) for each in device.workspace_ids)
    return frozenset(binding.routing_key for binding in bindings)


def _device_of(name: str) -> UUID | None:
    try:
        device_id = UUID(name)
    except ValueError:
        return None
    return device_id if topology.device_user(device_id) == name else None

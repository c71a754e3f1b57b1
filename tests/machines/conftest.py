"""A service that devices elsewhere use, and devices as people have them: the wheel, on machines of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machines.network import Network, made_network
from tests.machines.stack import Device, Service
from tests.machines.wheel import Installed, install


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """Three machines, or this one."""
    with made_network() as made:
        yield made


@pytest.fixture
def three_machines(network: Network) -> Network:
    """Three machines; skips, and says why, where there can be but one."""
    if network.why_not is not None:
        pytest.skip(network.why_not)
    return network


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """What `pip install hutch-….whl` makes."""
    return install(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Iterator[Service]:
    """A stack that listens where the other machines reach it, over TLS, with an authority of its own."""
    one = Service(tmp_path_factory.mktemp("two machines") / "service", network.server)
    try:
        one.up("--listen", network.address, "--public-url", f"https://{network.address}")
        yield one
    finally:
        one.kill()


@pytest.fixture
def email(service: Service) -> str:
    """An account of the test's own."""
    return service.add_person()


@pytest.fixture
def devices(network: Network, wheel: Installed, tmp_path: Path) -> Iterator[Callable[[str], Device]]:
    """Makes devices by name (`one` and `two` on machines of their own) with the wheel's program; ends their agents."""
    made: list[Device] = []
    machines = dict(zip(("one", "two"), network.devices, strict=True))

    def make(name: str) -> Device:
        device = Device(tmp_path / name, machines[name], wheel.hutch)
        device.folder.mkdir(parents=True)
        made.append(device)
        return device

    yield make
    for device in made:
        device.stop()

"""A folder that is emptied by mistake: the other device keeps its files, and a person decides, on either."""

import json
import shutil
from typing import Any

import pytest

from tests.e2e.device import Device, FailedError, Pair, wait_until
from tests.e2e.stack import PASSWORD, Stack, settle
from tests.e2e.trees import tree_of

FILES = 120
ARRIVAL_S = 90.0


async def stocked(running: Stack, pair: Pair) -> None:
    """Both devices have 120 files, which were made two hours ago by the service's clock."""
    for number in range(FILES):
        pair.laptop.write(f"{number % 10}/{number}.txt", f"text {number}\n".encode())
    settle(pair.laptop, pair.desktop, timeout_s=ARRIVAL_S)
    await running.fetch("UPDATE nodes SET made_at = made_at - interval '2 hours'")


def empty(device: Device) -> None:
    for number in range(10):
        shutil.rmtree(device.folder / str(number))


def holds(device: Device) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(device.hutch("review", "--json"))["holds"]
    return found


def wait_held(device: Device) -> None:
    def codes() -> list[str]:
        return [error["code"] for workspace in device.status()["workspaces"] for error in workspace["errors"]]

    wait_until(lambda: "held" in codes(), ARRIVAL_S, lambda: f"not held: {device.status()}")


async def test_the_other_device_has_it_undone_and_then_accepts_it(running: Stack, pair: Pair) -> None:
    await stocked(running, pair)
    before = tree_of(pair.desktop.folder)
    empty(pair.laptop)
    wait_held(pair.laptop)
    [held] = holds(pair.desktop)
    assert (held["device_name"], held["current"], held["verdict"]) == ("laptop", False, "held")
    assert (held["deleted"], held["rewritten"]) == (FILES + 10, 0)
    assert tree_of(pair.desktop.folder) == before
    pair.desktop.hutch("review", "--undo")
    settle(pair.laptop, pair.desktop, timeout_s=ARRIVAL_S)
    assert tree_of(pair.laptop.folder) == before
    assert holds(pair.laptop) == []
    empty(pair.laptop)
    wait_held(pair.laptop)
    pair.desktop.hutch("review", "--accept")
    settle(pair.laptop, pair.desktop, timeout_s=ARRIVAL_S)
    assert not list(pair.desktop.folder.glob("*.txt"))
    assert not list(pair.desktop.folder.glob("[0-9]"))
    assert holds(pair.desktop) == []


async def test_without_an_agent_it_is_held_as_well_and_the_password_accepts_it(
    running: Stack, pair: Pair
) -> None:
    await stocked(running, pair)
    pair.laptop.end()
    empty(pair.laptop)
    with pytest.raises(FailedError, match="ended with 32"):
        pair.laptop.hutch("sync", "--timeout", "120")
    [held] = holds(pair.laptop)
    assert held["current"]
    with pytest.raises(FailedError, match="ended with 20"):
        pair.laptop.hutch("review", "--accept", "--password-stdin", stdin="a guess")
    pair.laptop.hutch("review", "--accept", "--password-stdin", stdin=PASSWORD)
    pair.laptop.hutch("sync", "--timeout", "120")
    wait_until(
        lambda: not list(pair.desktop.folder.glob("[0-9]")), ARRIVAL_S, lambda: "the desktop has them still"
    )

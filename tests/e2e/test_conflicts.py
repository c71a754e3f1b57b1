"""Two people change one file: what each is told of it, and what becomes of it when one of them decides."""

import json
from typing import Any

from tests.e2e.device import Device, Pair
from tests.e2e.stack import Stack
from tests.e2e.trees import differences, tree_of

ARRIVAL_S = 60.0
TEXT = "one\ntwo\nthree\nfour\nfive\n"


def told(device: Device, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(device.hutch(*arguments, "--json"))
    return found


def state(device: Device, path: str) -> str:
    return str(told(device, "explain", str(device.folder / path))["state"])


def both_waited(laptop: Device, desktop: Device) -> None:
    assert laptop.wait(ARRIVAL_S)
    assert desktop.wait(ARRIVAL_S)
    assert differences(tree_of(laptop.folder), tree_of(desktop.folder)) == []


def test_a_conflict_is_told_of_and_merged(running: Stack, pair: Pair) -> None:
    _, laptop, desktop = pair
    laptop.write("plan.txt", TEXT.encode())
    assert laptop.wait(ARRIVAL_S)
    both_waited(laptop, desktop)
    assert state(desktop, "plan.txt") == "synced"

    desktop.end()
    desktop.write("plan.txt", TEXT.replace("five", "FIVE").encode())
    assert state(desktop, "plan.txt") == "unseen"  # no agent has looked since
    laptop.write("plan.txt", TEXT.replace("one", "ONE").encode())
    assert laptop.wait(ARRIVAL_S)
    desktop.start()
    assert desktop.wait(ARRIVAL_S)
    both_waited(laptop, desktop)

    [copy] = told(laptop, "conflicts")["conflicts"]
    for device in (laptop, desktop):
        [plan] = told(device, "plan")["workspaces"]
        assert (plan["up"]["count"], plan["down"]["count"], plan["waits"]["count"]) == (0, 0, 0)
        assert [c["path"] for c in told(device, "conflicts")["conflicts"]] == [copy["path"]]
        # Of another device's copy, what both came from is known by the service's history.
        assert not told(device, "conflicts", "merge", str(device.folder / copy["path"]))["merged"]
    assert (copy["original"], copy["device"], copy["synced"]) == ("plan.txt", desktop.name, True)
    told(laptop, "conflicts", "merge", str(laptop.folder / copy["path"]), "--yes")
    both_waited(laptop, desktop)
    merged = TEXT.replace("one", "ONE").replace("five", "FIVE").encode()
    assert (desktop.folder / "plan.txt").read_bytes() == merged
    assert told(desktop, "conflicts")["conflicts"] == []


def test_what_waits_is_listed_with_its_reason(running: Stack, pair: Pair) -> None:
    _, laptop, desktop = pair
    laptop.write("old.txt", b"old")
    assert laptop.wait(ARRIVAL_S)
    both_waited(laptop, desktop)
    desktop.hutch("pause")
    laptop.write("there.txt", b"there")
    (laptop.folder / "old.txt").unlink()
    assert laptop.wait(ARRIVAL_S)
    desktop.write("here.txt", b"here")
    desktop.wait(0)  # it looks, and has no time to be done with what it may not do
    listed = {
        (change["direction"], change["change"], change["path"])
        for change in told(desktop, "plan")["workspaces"][0]["changes"]
    }
    assert ("down", "deleted", "old.txt") in listed
    assert ("down", "new", "there.txt") in listed
    assert "paused" in desktop.hutch("plan")
    assert state(desktop, "there.txt") == "to_fetch"
    desktop.hutch("resume")
    assert desktop.wait(ARRIVAL_S)
    both_waited(laptop, desktop)
    assert told(desktop, "plan")["workspaces"][0]["changes"] == []

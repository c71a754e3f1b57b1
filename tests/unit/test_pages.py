"""The pages say what the code does: events, settings, metrics, dead letters, and the files that they lead to."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "broker", "metadata", "sync_workers", "block_gateway")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")])


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def sources() -> list[str]:
    return [
        file.read_text("utf-8") for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))
    ]


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the code, by the last part of the called name."""
    for source in sources():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                function = node.func
                yield str(getattr(function, "attr", None) or getattr(function, "id", "")), node


def words(call: ast.Call) -> Iterator[str]:
    for argument in call.args:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def first_cells(text: str) -> set[str]:
    """What stands in backticks in the first column of a page's tables."""
    cells = re.findall(r"^\|([^|]+)\|", text, re.M)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_every_event_is_on_its_page():
    emitted = {
        word
        for name, call in calls()
        if name in LEVELS or name == "_say"
        for word in words(call)
        if re.fullmatch(r"[a-z_]+\.[a-z_]+", word)
    }
    assert emitted == first_cells(page("events.md"))


@pytest.mark.parametrize("name", ["settings.md", "cli.md"])
def test_every_setting_is_on_its_page(name):
    read = {key for source in sources() for key in re.findall(r"\bHUTCH_[A-Z0-9_]*[A-Z0-9]\b", source)}
    told = {key for key in first_cells(page(name)) if key.startswith("HUTCH_")}
    assert read == told


def test_every_metric_is_in_the_runbook():
    counted: set[str] = set()
    for name, call in calls():
        found = [word for word in words(call) if re.fullmatch(r"hutch_[a-z_]+", word)]
        counted.update(word + ("_total" if name == "Counter" else "") for word in found)
        if name == "watch" and (watched := list(words(call))):
            counted.add(f"hutch_gateway_{watched[0]}")
    told = {cell.partition("{")[0] for cell in first_cells(page("runbook.md")) if cell.startswith("hutch_")}
    assert counted == told


def test_every_reason_of_a_dead_letter_is_in_the_runbook():
    given = {"corrupt"}  # the code of `broker.errors.Corrupt`
    for name, call in calls():
        if name in ("Misfit", "Dead", "Resolved"):
            given.update(said(call, "reason"), said(call, "dead"))
        if name == "_bury":
            given.update(words(call))
    section = page("runbook.md").partition("## Dead letters")[2].partition("\n## ")[0]
    assert given == first_cells(section) - {"x-hutch-reason", "x-death", "delivery_limit"}


def said(call: ast.Call, keyword: str) -> set[str]:
    """The fixed words that a keyword argument may be."""
    values = [each.value for each in call.keywords if each.arg == keyword]
    constants = [node for value in values for node in ast.walk(value) if isinstance(node, ast.Constant)]
    return {node.value for node in constants if isinstance(node.value, str)}


def definitions() -> tuple[set[str], set[str]]:
    """What the code defines: the classes (and modules), and their members as `Class.method` and `module.function`."""
    owners, members = set(), set()
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            module = ast.parse(file.read_text("utf-8"))
            owners.add(file.stem)
            for node in module.body:
                name = getattr(node, "name", "")
                members.add(f"{file.stem}.{name}")
                if isinstance(node, ast.ClassDef):
                    owners.add(name)
                    inner = [
                        each for each in ast.walk(node) if hasattr(each, "name") or hasattr(each, "attr")
                    ]
                    fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
                    members.update(
                        f"{name}.{getattr(each, 'name', getattr(each, 'attr', ''))}" for each in inner
                    )
                    members.update(f"{name}.{each.id}" for each in fields if isinstance(each, ast.Name))
    return owners, members


def test_what_the_tour_names_is_in_the_code():
    owners, members = definitions()
    named = re.findall(r"`(\w+)\.(\w+)`", (ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    files = {"py", "sql", "md", "conf", "toml", "json", "txt"}
    missing = [
        f"{owner}.{member}"
        for owner, member in named
        if member not in files and owner in owners and f"{owner}.{member}" not in members
    ]
    assert missing == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_page_leads_to_is_there(file):
    text = file.read_text("utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links if not (file.parent / link).exists()]
    named = re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|sql|md|conf|json))(?:::?\w+)?`", text)
    missing += [
        path
        for path in named
        if not path.startswith((".hutch/", "DIR/"))
        and not any((base / path).exists() for base in (ROOT, *(ROOT / package for package in PACKAGES)))
    ]
    assert missing == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_tests_that_a_page_names_are_there(file):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)", file.read_text("utf-8"))
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.M)
    ]
    assert missing == []

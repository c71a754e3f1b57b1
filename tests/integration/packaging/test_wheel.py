"""The wheel that a person's device installs: all that the agent needs is in it or declared, and nothing of a server's.

No network: the wheel is installed without its dependencies, and a device's environment is posed by letting it import
of this environment's packages only what the wheel's own requirements lead to.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("agent", "broker", "block_gateway", "metadata", "sync_workers")
SERVER_ONLY = {"asyncpg", "aiobotocore", "argon2-cffi", "prometheus-client", "cryptography"}

BLOCKER = """
import sys
from importlib.abc import MetaPathFinder

allowed = set({allowed!r})
blocked = set({blocked!r})

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in blocked and top not in allowed:
            raise ImportError(f"{{name}} is not on a device")

sys.meta_path.insert(0, Blocker())
sys.path.append({site!r})
"""

IMPORT_ALL = """
import pkgutil, importlib, agent, broker
import block_gateway.wire
assert agent.__path__[0].startswith({prefix!r}), agent.__path__
for package in (agent, broker):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print("all imported")
"""


@dataclass(frozen=True)
class Built:
    """The wheel, and an environment with nothing else in it."""

    wheel: Path
    python: Path

    @property
    def names(self) -> list[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()

    def requirements(self) -> list[str]:
        """What installing the wheel as it is pulls."""
        with zipfile.ZipFile(self.wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            lines = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
        return [project(line) for line in lines if "extra ==" not in line]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("packaging")
    wheel = build_wheel(copy_sources(folder / "sources"), folder / "wheels")
    environment = folder / "environment"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(environment)
    python = environment / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    return Built(wheel, python)


def copy_sources(target: Path) -> Path:
    """Building leaves its tracks among the sources: let it do so elsewhere."""
    target.mkdir()
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)
    return target


def build_wheel(sources: Path, target: Path) -> Path:
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", target, sources)
    (wheel,) = target.glob("hutch-*.whl")
    return wheel


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def project(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def closure(projects: Iterable[str]) -> set[str]:
    """These projects and all that they need, as far as they are installed here."""
    known: set[str] = set()
    waiting = list(projects)
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another platform or another Python
        waiting += [project(need) for need in needs if "extra ==" not in need]
    return known


def run_on_device(built: Built, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program where there is the wheel and what its requirements lead to, and nothing else."""
    on_device = closure(built.requirements())
    owners = packages_distributions()
    allowed = [top for top, names in owners.items() if {project(name) for name in names} & on_device]
    blocker = BLOCKER.format(
        allowed=allowed,
        blocked=[top for top in owners if top not in PACKAGES],
        site=sysconfig.get_path("purelib"),
    )
    command = [str(built.python), "-I", "-W", "error", "-c", blocker + program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_installing_pulls_nothing_that_only_a_server_needs(built: Built):
    pulled = closure(built.requirements())
    assert "aiohttp" in pulled
    assert not pulled & SERVER_ONLY


def test_everything_that_the_agent_is_made_of_is_in_it(built: Built):
    names = set(built.names)
    for folder in ("agent", "agent/cli", "broker"):
        for path in (ROOT / folder).glob("*.py"):
            assert f"{folder}/{path.name}" in names
    assert {"block_gateway/__init__.py", "block_gateway/wire.py"} <= names


def test_servers_find_their_statements_in_it(built: Built):
    names = set(built.names)
    for path in [*(ROOT / "metadata").rglob("*.sql"), *(ROOT / "block_gateway").rglob("*.sql")]:
        assert str(path.relative_to(ROOT)) in names


def test_nothing_else_is_in_it(built: Built):
    tops = {name.partition("/")[0] for name in built.names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_a_device_can_import_all_of_the_agent(built: Built):
    outcome = run_on_device(built, IMPORT_ALL.format(prefix=str(built.python.parents[1])))
    assert (outcome.stdout, outcome.stderr) == ("all imported\n", "")


def test_the_blocker_blocks(built: Built):
    outcome = run_on_device(built, "import asyncpg")
    assert "asyncpg is not on a device" in outcome.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["link", "--help"], ["--version"]])
def test_a_device_can_run_the_command_line(built: Built, arguments: list[str]):
    program = f"sys.argv = ['hutch', *{arguments!r}]\nfrom agent.cli.main import main\nmain()"
    outcome = run_on_device(built, program)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "hutch" in outcome.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["user", "list"]])
def test_the_operators_program_says_on_a_device_what_it_lacks(built: Built, arguments: list[str]):
    program = f"sys.argv = ['hutch-admin', *{arguments!r}]\nfrom metadata.admin import main\nmain()"
    outcome = run_on_device(built, program)
    assert (outcome.returncode, outcome.stdout) == (78, "")
    assert outcome.stderr.startswith("hutch-admin: this is a device's installation")
    assert outcome.stderr.count("\n") == 1


def test_the_program_stands_where_programs_stand(built: Built):
    script = built.python.with_name("hutch")
    assert script.read_text().startswith(f"#!{built.python}")

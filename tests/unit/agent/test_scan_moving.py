"""Looking while somebody moves directories: what is seen twice, or under another's name, is looked at once more."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.filesystem import Root
from agent.scan import Unsteady
from tests.unit.agent.disk import Disk
from tests.unit.agent.test_scan import paths

Meanwhile = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """a/ and b/, each with one and two; c/ with d/."""
    made = Disk(tmp_path)
    for path in ("a/one", "a/two", "b/one", "b/two", "c/d/three"):
        made.write(path, f"old {path}")
    made.look()
    yield made
    made.root.close()


@pytest.fixture
def after_listing(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Have something happen once, right after a directory was listed."""
    listed = Root.directory
    waiting: dict[str, Callable[[], object]] = {}

    @contextlib.contextmanager
    def directory(root: Root, path: str) -> Iterator[int]:
        with listed(root, path) as fd:
            yield fd
        waiting.pop(path, lambda: None)()

    monkeypatch.setattr(Root, "directory", directory)
    return lambda path, action: waiting.update({path: action})


def test_a_directory_that_moves_from_what_was_listed_is_seen_once(
    disk: Disk, after_listing: Meanwhile
) -> None:
    before = paths(disk)
    after_listing("a", lambda: (disk.path / "a").rename(disk.path / "c/a"))
    disk.look({"a": False, "c": False, "": False})
    assert paths(disk) == {
        path.replace("a/", "c/a/") if path != "a" else "c/a": n for path, n in before.items()
    }


def test_a_file_that_moves_from_what_was_listed_keeps_its_node(disk: Disk, after_listing: Meanwhile) -> None:
    before = paths(disk)
    after_listing("a", lambda: (disk.path / "a/one").rename(disk.path / "c/one"))
    disk.look({"a": False, "c": False})
    assert paths(disk) == {"c/one" if path == "a/one" else path: n for path, n in before.items()}


def test_directories_that_were_swapped_before_a_hint_keep_what_is_in_them(disk: Disk) -> None:
    before = paths(disk)
    (disk.path / "a").rename(disk.path / "x")
    (disk.path / "b").rename(disk.path / "a")
    (disk.path / "x").rename(disk.path / "b")
    disk.look({"a": False})
    swapped = {"a": "b", "b": "a", "a/one": "b/one", "a/two": "b/two", "b/one": "a/one", "b/two": "a/two"}
    assert paths(disk) == {swapped.get(path, path): n for path, n in before.items()}


def test_what_never_comes_to_rest_is_left_for_later(disk: Disk, after_listing: Meanwhile) -> None:
    def there() -> None:
        (disk.path / "a").rename(disk.path / "c/a")
        after_listing("c", back)

    def back() -> None:
        (disk.path / "c/a").rename(disk.path / "a")
        after_listing("a", there)

    before = paths(disk)
    after_listing("a", there)
    with pytest.raises(Unsteady):
        disk.look({"a": False, "c": False, "": True})
    assert paths(disk) == before

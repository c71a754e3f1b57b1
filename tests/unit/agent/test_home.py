"""HUTCH_HOME: private, whole after every write, and for one agent at a time."""

import errno
import os
import stat
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from agent.errors import AlreadyRunning, DiskFull, NotLinked
from agent.home import MAX_SOCKET_PATH_BYTES, Credential, FolderRecord, Home, default_root
from agent.marker import Marker, read_marker, remove_marker, write_marker
from broker.errors import Corrupt, Misconfigured

WORKSPACE = UUID(int=7)
CREDENTIAL = Credential(
    device_id=UUID(int=1),
    device_secret="a secret",
    user_id=UUID(int=2),
    email="anna@example.org",
    device_name="laptop",
    metadata_url="http://127.0.0.1:1",
    gateway_url="http://127.0.0.1:2",
    amqp_url="amqp://127.0.0.1:3/hutch",
    amqp_password="another secret",
    queue="device.0",
    cafile=None,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open({"HUTCH_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)})


def test_a_home_that_is_not_there_is_empty_and_is_not_made_by_looking(home: Home):
    assert home.credential is None
    assert home.folders() == []
    assert not home.root.exists()
    with pytest.raises(NotLinked, match="hutch link"):
        home.linked()


def test_the_device_is_kept_for_its_person_alone(home: Home):
    home.save_credential(CREDENTIAL)
    assert home.linked() == CREDENTIAL
    assert stat.S_IMODE(home.config_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert [path.name for path in home.root.iterdir()] == ["config.json"]


def test_a_device_never_shows_its_secrets():
    assert "secret" not in repr(CREDENTIAL)
    assert "secret" not in str(CREDENTIAL)


def test_a_device_that_others_could_read_is_refused(home: Home):
    home.save_credential(CREDENTIAL)
    home.config_path.chmod(0o640)
    with pytest.raises(Misconfigured, match="chmod 600"):
        _ = home.credential


def test_a_damaged_file_is_named(home: Home):
    home.save_credential(CREDENTIAL)
    home.config_path.write_bytes(b'{"device_id":')
    with pytest.raises(Corrupt, match=r"config\.json is damaged"):
        home.linked()


def test_a_directory_that_others_may_change_is_refused_unless_it_is_empty(tmp_path: Path):
    tmp_path.chmod(0o777)
    Home.open({"HUTCH_HOME": str(tmp_path)})
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    (tmp_path / "something").touch()
    tmp_path.chmod(0o770)
    with pytest.raises(Misconfigured, match="HUTCH_HOME"):
        Home.open({"HUTCH_HOME": str(tmp_path)})


def test_a_file_is_no_home(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="not a directory"):
        Home.open({"HUTCH_HOME": str(tmp_path / "file")})


def test_folders_keep_their_order_and_one_record_a_path(home: Home):
    first, second = _record("/a"), _record("/b")
    home.add_folder(first)
    home.add_folder(second)
    assert home.folders() == [first, second]
    again = FolderRecord(folder="/a", workspace_id=WORKSPACE, name="renamed")
    home.add_folder(again)
    assert home.folders() == [second, again]
    home.remove_folder("/b")
    home.remove_folder("/not/there")
    assert home.folders() == [again]
    assert stat.S_IMODE(home.folders_path.stat().st_mode) == 0o600


def test_a_full_disk_is_said_and_leaves_the_old_file(home: Home, monkeypatch: pytest.MonkeyPatch):
    home.save_credential(CREDENTIAL)

    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("agent.durable.os.fsync", no_room)
    with pytest.raises(DiskFull, match="disk is full"):
        home.save_credential(CREDENTIAL)
    assert home.linked() == CREDENTIAL
    assert [path.name for path in home.root.iterdir()] == ["config.json"]


def test_a_home_has_one_agent(home: Home):
    with home.lock(), pytest.raises(AlreadyRunning) as refusal, home.lock():
        pass
    assert refusal.value.code == "already_running"
    with home.lock():
        pass


def test_a_socket_stands_in_the_home_unless_its_path_is_too_long(tmp_path: Path):
    near = Home(root=Path("/h"), runtime=Path("/run/user/1/hutch"))
    assert near.socket_path == Path("/h/agent.sock")
    far = Home(root=Path("/" + "h" * 200), runtime=Path("/run/user/1/hutch"))
    assert far.socket_path.parent == far.runtime
    assert far.socket_path == Home(root=far.root, runtime=far.runtime).socket_path
    assert len(os.fsencode(far.socket_path)) <= MAX_SOCKET_PATH_BYTES


def test_a_runtime_directory_that_is_itself_too_long_is_passed_over():
    environ = {"HUTCH_HOME": "/" + "h" * 200, "XDG_RUNTIME_DIR": "/" + "r" * 200}
    assert len(os.fsencode(Home.open(environ).socket_path)) <= MAX_SOCKET_PATH_BYTES


def test_the_default_home_follows_the_platform(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.platform", "linux")
    assert default_root({"HOME": "/home/anna"}) == Path("/home/anna/.local/share/hutch")
    assert default_root({"HOME": "/home/anna", "XDG_DATA_HOME": "/data"}) == Path("/data/hutch")
    monkeypatch.setattr("sys.platform", "darwin")
    assert default_root({"HOME": "/Users/anna"}) == Path("/Users/anna/Library/Application Support/Hutch")


def test_forgetting_leaves_nothing_but_the_locks(home: Home):
    home.save_credential(CREDENTIAL)
    home.save_ca(b"a certificate")
    home.add_folder(_record("/a"))
    home.index_path.touch()
    Path(f"{home.index_path}-wal").touch()
    with home.lock():
        home.forget()
    assert sorted(path.name for path in home.root.iterdir()) == ["agent.lock", "folders.lock"]


def test_a_pinned_certificate_is_found_through_the_device(home: Home):
    name = home.save_ca(b"a certificate")
    assert home.cafile is None
    home.save_credential(msgspec.structs.replace(CREDENTIAL, cafile=name))
    assert home.cafile == home.root / "ca.pem"


def test_a_folder_bears_its_mark_until_it_is_taken_off(tmp_path: Path):
    assert read_marker(tmp_path) is None
    marker = Marker(workspace_id=WORKSPACE, device_id=UUID(int=1), generation=3)
    write_marker(tmp_path, marker)
    assert read_marker(tmp_path) == marker
    assert remove_marker(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mark_goes_and_kept_content_stays(tmp_path: Path):
    write_marker(tmp_path, Marker(workspace_id=WORKSPACE, device_id=UUID(int=1)))
    (tmp_path / ".hutch" / "kept").mkdir()
    (tmp_path / ".hutch" / "kept" / "words").write_text("not to be lost")
    (tmp_path / ".hutch" / "empty").mkdir()
    assert not remove_marker(tmp_path)
    assert read_marker(tmp_path) is None
    assert [path.name for path in (tmp_path / ".hutch").iterdir()] == ["kept"]


def test_a_damaged_mark_is_named(tmp_path: Path):
    (tmp_path / ".hutch").mkdir()
    (tmp_path / ".hutch" / "marker.json").write_text("{}")
    with pytest.raises(Corrupt, match="damaged"):
        read_marker(tmp_path)


def _record(folder: str) -> FolderRecord:
    return FolderRecord(folder=folder, workspace_id=WORKSPACE, name="docs")

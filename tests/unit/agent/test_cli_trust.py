"""Which addresses may be plain, what a fingerprint is, and the text of the login's unit."""

from pathlib import Path

import pytest

from agent.errors import PlainText
from agent.login_service import find_program, quote, unit_path, unit_text
from agent.trust import check_session, check_url, fingerprint_of, plain_fingerprint
from broker.errors import Corrupt, Misconfigured


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://localhost/",
        "http://[::1]:1",
        "http://127.9.9.9",
        "https://hutch.example.org/base/",
    ],
)
def test_a_good_address_is_kept_without_its_last_slash(url: str):
    assert check_url(url, allow_plaintext=False) == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["http://hutch.example.org", "http://10.0.0.1:80", "http://localhost.example.org"]
)
def test_plain_text_leaves_this_computer_only_when_told(url: str):
    with pytest.raises(PlainText, match="--allow-plaintext"):
        check_url(url, allow_plaintext=False)
    assert check_url(url, allow_plaintext=True) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hutch.example.org",
        "ftp://a",
        "https://",
        "https://a:b",
        "https://u:p@a",
        "https://a?q=1",
        "http://[::",
    ],
)
def test_what_is_no_address(url: str):
    with pytest.raises(Misconfigured, match="no address of a service"):
        check_url(url, allow_plaintext=True)


@pytest.mark.parametrize(
    "text", ["ab" * 32, "AB" * 32, ":".join(["aB"] * 32), "sha256:" + "ab" * 32, " " + "ab" * 32]
)
def test_a_fingerprint_may_be_written_in_many_ways(text: str):
    assert plain_fingerprint(text) == "ab" * 32


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33])
def test_what_is_no_fingerprint(text: str):
    with pytest.raises(Misconfigured, match="64 hex digits"):
        plain_fingerprint(text)


BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\xff",
        b"no certificate",
        f"{BEGIN}\nYQ==\n{END}\n{BEGIN}\nYQ==\n{END}\n".encode(),
        f"{BEGIN}\nYQ==".encode(),
    ],
)
def test_a_fingerprint_is_of_exactly_one_certificate(pem: bytes):
    with pytest.raises(Corrupt, match="cannot be read"):
        fingerprint_of(pem)


def test_a_fingerprint_is_of_the_bytes_within():
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # of "a"
    assert fingerprint_of(f"{BEGIN}\nYQ==\n{END}\n".encode()) == digest


def test_the_unit_carries_the_home_and_comes_back_after_a_failure():
    text = unit_text(["/opt/my hutch/bin/hutch"], Path("/home/anna/100% mine"))
    assert 'ExecStart="/opt/my hutch/bin/hutch" run\n' in text
    assert 'Environment="HUTCH_HOME=/home/anna/100%% mine"\n' in text
    assert "Restart=on-failure\n" in text
    assert "WantedBy=default.target\n" in text


def test_a_unit_does_not_come_back_from_what_only_a_person_mends():
    line = next(line for line in unit_text(["/h"], Path("/")).splitlines() if "Prevent" in line)
    assert line == "RestartPreventExitStatus=12 21 22 26 28 78"


@pytest.mark.parametrize(
    ("word", "quoted"),
    [("a", '"a"'), ('a"b', '"a\\"b"'), ("a\\b", '"a\\\\b"'), ("50%", '"50%%"'), ("é", '"é"')],
)
def test_words_come_through_systemd_unchanged(word: str, quoted: str):
    assert quote(word) == quoted


def test_a_dollar_in_the_command_is_a_dollar():
    assert 'ExecStart="/$$HOME/hutch" run' in unit_text(["/$HOME/hutch"], Path("/h"))


@pytest.mark.parametrize("folder", ["/it's", '/a "b"', "/a\\b"])
def test_a_program_whose_path_systemd_would_not_take_is_an_argument(folder: str):
    text = unit_text([f"{folder}/hutch"], Path("/h"))
    assert f"""ExecStart="/bin/sh" "-c" "exec \\"$$0\\" \\"$$@\\"" {quote(f"{folder}/hutch")} run\n""" in text


def test_a_line_break_cannot_stand_in_a_unit():
    with pytest.raises(Misconfigured, match="unit file"):
        unit_text(["/h"], Path("/a\nExecStartPre=/bin/evil"))


def test_the_program_is_this_very_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert find_program() == [str(tmp_path / "python"), "-P", "-m", "agent.cli"]
    (tmp_path / "hutch").touch(mode=0o755)
    assert find_program() == [str(tmp_path / "hutch")]


def test_units_are_kept_where_the_person_keeps_configuration():
    assert unit_path({}, Path("/home/anna")) == Path("/home/anna/.config/systemd/user/hutch.service")
    assert unit_path({"XDG_CONFIG_HOME": "/c"}, Path("/a")) == Path("/c/systemd/user/hutch.service")


@pytest.mark.parametrize(
    ("metadata_url", "gateway_url", "amqp_url", "good"),
    [
        ("https://h.example", "https://h.example:8", "amqps://h.example:5", True),
        ("https://h.example", "http://h.example:8", "amqps://h.example:5", False),
        ("https://h.example", "https://h.example:8", "amqp://h.example:5", False),
        ("https://localhost", "http://127.0.0.1:8", "amqp://localhost:5", True),
        ("http://10.0.0.1", "http://10.0.0.1:8", "amqp://10.0.0.1:5", True),  # the person has allowed it
    ],
)
def test_a_service_over_tls_sends_nobody_on_in_the_clear(
    metadata_url: str, gateway_url: str, amqp_url: str, good: bool
):
    if good:
        check_session(metadata_url, gateway_url, amqp_url)
    else:
        with pytest.raises(PlainText):
            check_session(metadata_url, gateway_url, amqp_url)

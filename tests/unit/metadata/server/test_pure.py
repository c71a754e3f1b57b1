"""What the metadata server decides without asking anybody: differences, tries, settings, credentials, labels."""

import uuid
from dataclasses import replace

import pytest
from argon2 import PasswordHasher
from yarl import URL

from broker import topology
from broker.errors import Misconfigured
from metadata import accounts
from metadata.registry import DesiredDevice
from metadata.server.auth import parse_credential
from metadata.server.differences import DEVICE_LIMITS, BrokerState, find_differences
from metadata.server.settings import read_settings, vhost_of
from metadata.server.tries import Tries

ID, OTHER, HOME, WORK = (uuid.UUID(int=number) for number in range(1, 5))
LAPTOP = DesiredDevice(
    device_id=ID,
    queue_name="device.a",
    broker_password_hash="h",
    revoked=False,
    workspace_ids=frozenset({HOME, WORK}),
)
USER = str(ID)
RIGHT = BrokerState(
    users={USER: "h", "admin": "x"},
    limits={USER: DEVICE_LIMITS},
    permissions={USER: topology.device_permissions("device.a"), "admin": {"configure": ".*"}},
    queues=frozenset({"device.a"}),
    bindings={"device.a": frozenset({str(HOME), str(WORK)})},
)
EMPTY = BrokerState(users={}, limits={}, permissions={}, queues=frozenset(), bindings={})


@pytest.mark.parametrize(
    ("sentence", "state", "desired", "devices", "queues"),
    [
        ("all is as it should be", RIGHT, [LAPTOP], [], []),
        ("an empty broker lacks all", EMPTY, [LAPTOP], [ID], []),
        ("another password", replace(RIGHT, users={USER: "other"}), [LAPTOP], [ID], []),
        ("no limits", replace(RIGHT, limits={}), [LAPTOP], [ID], []),
        ("no permissions", replace(RIGHT, permissions={}), [LAPTOP], [ID], []),
        ("no queue", replace(RIGHT, queues=frozenset()), [LAPTOP], [ID], []),
        ("a binding too few", replace(RIGHT, bindings={"device.a": frozenset({str(HOME)})}), [LAPTOP], [ID], []),
        ("a binding too many", RIGHT, [replace(LAPTOP, workspace_ids=frozenset({HOME}))], [ID], []),
        ("no workspace, no binding", replace(RIGHT, bindings={}), [replace(LAPTOP, workspace_ids=frozenset())], [], []),
        ("revoked, and all is there", RIGHT, [replace(LAPTOP, revoked=True)], [ID], []),
        ("revoked, and a queue is left", replace(EMPTY, queues=frozenset({"device.a"})),
         [replace(LAPTOP, revoked=True)], [ID], []),
        ("revoked, and nothing is there", EMPTY, [replace(LAPTOP, revoked=True)], [], []),
        ("nobody's user and queue", RIGHT, [], [ID], ["device.a"]),
        ("a user of another virtual host is not ours", replace(RIGHT, users={**RIGHT.users, str(OTHER): "z"}),
         [LAPTOP], [], []),
        ("a UUID that is not written as ours is not ours",
         replace(RIGHT, permissions={**RIGHT.permissions, OTHER.hex: {}}), [LAPTOP], [], []),
    ],
)  # fmt: skip
def test_differences(sentence, state, desired, devices, queues):
    found = find_differences(state, desired)
    assert (list(found.devices), list(found.queues)) == (devices, queues), sentence


def test_the_brokers_state_does_not_print_hashes():
    assert "'h'" not in repr(RIGHT)


def test_ten_tries_a_minute():
    tries = Tries()
    assert [tries.begin("a", now_s) for now_s in range(11)] == [True] * 10 + [False]
    assert tries.begin("b", 10)
    assert not tries.begin("a", 59)
    assert tries.begin("a", 60)
    assert not tries.begin("a", 60.5)


def test_a_right_password_does_not_count():
    tries = Tries(limit=1)
    for now_s in range(5):
        assert tries.begin("a", now_s)
        tries.succeed("a", now_s)
    assert tries.begin("a", 5)
    assert not tries.begin("a", 6)


def test_tries_remember_a_bounded_number_of_accounts():
    tries = Tries(limit=1, max_accounts=2)
    assert [tries.begin(account, 0) for account in "abc"] == [True] * 3
    assert not tries.begin("c", 1)
    assert tries.begin("a", 1)
    tries.succeed("forgotten", 0)


GOOD = {
    "HUTCH_POSTGRES_DSN": "postgresql://u:dsn-secret@h/d",
    "HUTCH_AMQP_URL": "amqp://u:amqp-secret@127.0.0.1:5672/cell%2F1",
    "HUTCH_MANAGEMENT_URL": "http://u:management-secret@127.0.0.1:15672",
    "HUTCH_METADATA_LISTEN": "[::1]:8080",
    "HUTCH_METADATA_PUBLIC_GATEWAY_URL": "https://files.example",
    "HUTCH_METADATA_PUBLIC_AMQP_URL": "amqps://u:public-secret@files.example:5671/cell%2F1",
}


def test_settings_are_read_and_keep_their_secrets():
    settings = read_settings(GOOD)
    assert (settings.host, settings.port, settings.vhost) == ("::1", 8080, "cell/1")
    assert settings.public_amqp_url == "amqps://files.example:5671/cell%2F1"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, "") for key in GOOD]
    + [
        ("HUTCH_AMQP_URL", "http://x"),
        ("HUTCH_AMQP_URL", "amqp://"),
        ("HUTCH_MANAGEMENT_URL", "amqp://x"),
        ("HUTCH_METADATA_LISTEN", "8080"),
        ("HUTCH_METADATA_LISTEN", "h:99999"),
        ("HUTCH_METADATA_PUBLIC_GATEWAY_URL", "files.example"),
        ("HUTCH_METADATA_TLS_KEY", "/key"),
        ("HUTCH_METADATA_CA", "/there/is/none"),
    ],
)
def test_a_wrong_setting_is_named(key, value):
    with pytest.raises(Misconfigured, match=key) as caught:
        read_settings({**GOOD, key: value})
    assert "secret" not in str(caught.value)


def test_a_ca_with_a_key_in_it_is_not_given_out(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(Misconfigured, match="without any key"):
        read_settings({**GOOD, "HUTCH_METADATA_CA": str(file)})


@pytest.mark.parametrize(
    ("path", "vhost"), [("", "hutch"), ("/", "hutch"), ("/a", "a"), ("/%2F", "/"), ("/a%2Fb", "a/b")]
)
def test_the_virtual_host_is_the_path(path, vhost):
    assert vhost_of(URL("amqp://h" + path)) == vhost


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", f"Bearer {ID}", f"Bearer {ID}.", "Bearer x.y", f"Basic {ID}.s"]
)
def test_what_is_no_credential(header):
    assert parse_credential(header) is None


def test_a_credential():
    assert parse_credential(f"bearer  {ID}.se.cret") == (ID, "se.cret")


def test_secrets_match_only_themselves():
    secret = accounts.make_secret()
    assert len(secret) >= 43
    assert accounts.secret_matches(accounts.hash_secret(secret), secret)
    assert not accounts.secret_matches(accounts.hash_secret(secret), secret + "x")
    assert not accounts.secret_matches(None, secret)
    assert not accounts.secret_matches(accounts.hash_secret(secret), "\udcff")


async def test_a_password_is_verified_and_an_unknown_account_is_refused_at_the_same_cost():
    class Counting(PasswordHasher):
        verified = 0

        def verify(self, known, password):
            self.verified += 1
            return super().verify(known, password)

    hasher = Counting(time_cost=1, memory_cost=8, parallelism=1)
    passwords = accounts.Passwords(hasher=hasher)
    known = await passwords.hash("right password")
    assert "argon2id" in known
    assert await passwords.verify(known, "right password")
    assert not await passwords.verify(known, "wrong password")
    assert not await passwords.verify(None, "right password")
    assert not await passwords.verify("no hash at all", "right password")
    assert hasher.verified == 4


@pytest.mark.parametrize("email", ["a@b", "some.body+x@example.org", "ü@bücher.example"])
def test_addresses(email):
    assert accounts.email_problem(email) is None


@pytest.mark.parametrize("email", ["", "a", "@", "a@", "@b", "a b@c", "a@b@c", "a\0@b", "a@" + "b" * 253])
def test_what_is_no_address(email):
    assert accounts.email_problem(email) is not None


def test_addresses_are_folded():
    assert accounts.fold_email(" Some.Body@EXAMPLE.org\n") == "some.body@example.org"


@pytest.mark.parametrize(
    ("password", "good"), [("x" * 7, False), ("x" * 8, True), ("x" * 1024, True), ("x" * 1025, False)]
)
def test_passwords(password, good):
    assert (accounts.password_problem(password) is None) is good


@pytest.mark.parametrize(("name", "good"), [("x", True), ("夜" * 100, True), ("x" * 101, False), ("", False), (" ", False), ("a\n", False), ("\x1b[2J", False)])  # fmt: skip
def test_labels(name, good):
    assert (accounts.label_problem(name) is None) is good


@pytest.mark.parametrize(
    ("name", "taken", "free"),
    [
        ("Laptop", [], "Laptop"),
        ("Laptop", ["Desktop"], "Laptop"),
        ("Laptop", ["Laptop"], "Laptop 2"),
        ("laptop", ["Laptop", "LAPTOP 2"], "laptop 3"),
        ("Laptop 2", ["Laptop", "Laptop 2"], "Laptop 2 2"),
        ("x" * 100, ["x" * 100], "x" * 98 + " 2"),
        ("x" * 97 + " yz", ["x" * 97 + " yz"], "x" * 97 + " 2"),
    ],
)
def test_a_device_whose_name_is_taken_is_numbered(name, taken, free):
    assert accounts.free_name(name, taken) == free
    assert accounts.label_problem(free) is None

"""`hutch-admin` as an operator runs it: what it does, one line for what goes wrong, and its exit codes."""

import asyncio
import json
import os
import sys
import uuid

import asyncpg
import pytest

from metadata.registry import Registry
from tests.integration.metadata.server.house import (
    PASSWORD,
    connect,
    has_ended,
    make_database,
    wait_until,
)


@pytest.fixture
def settings(house):
    return {
        "HUTCH_POSTGRES_DSN": house.services.settings.dsn,
        "HUTCH_AMQP_URL": house.services.settings.amqp_url,
        "HUTCH_MANAGEMENT_URL": house.services.settings.management_url,
    }


@pytest.fixture
def admin(tmp_path, settings):
    """Run `hutch-admin`, in an empty folder: (exit code, stdout, stderr)."""

    async def run(*arguments, password="", environment=None):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from metadata.admin import main; main()", *arguments,
            cwd=tmp_path, env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()} | (
                settings if environment is None else environment),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, error = await process.communicate(password.encode())
        assert error.count(b"\n") <= 1 or process.returncode == 2, error
        return process.returncode, out.decode(), error.decode()

    return run


async def test_an_account_that_was_added_can_be_linked(house, admin):
    email = f"{uuid.uuid4().hex}@Example.ORG"
    code, out, _ = await admin("user", "add", email, "--password-stdin", password=PASSWORD + "\n")
    assert (code, out) == (0, "")
    device = await house.link(email.lower(), "laptop")

    code, out, _ = await admin("user", "list", "--json")
    [user] = [each for each in json.loads(out)["users"] if each["email"] == email.lower()]
    assert (code, user["devices"], user["quota_bytes"], user["used_bytes"]) == (0, 1, None, 0)

    code, out, _ = await admin("device", "list", email)
    assert code == 0
    assert device.id in out and "laptop" in out  # noqa: PT018 - one line names both


async def test_a_quota_is_kept(admin):
    email = f"{uuid.uuid4().hex}@example.org"
    await admin("user", "add", email, "--password-stdin", "--quota", "1000000", password=PASSWORD)
    _, out, _ = await admin("user", "list", "--json")
    assert {each["email"]: each["quota_bytes"] for each in json.loads(out)["users"]}[email] == 1_000_000


async def test_revoking_reaches_the_broker(house, admin):
    device = await house.link(await house.person())
    connection = await connect(device)
    assert (await admin("device", "revoke", device.id))[0] == 0
    await wait_until(lambda: has_ended(connection), "the end of the revoked device's connection")
    assert (await house.call("GET", "/v1/heads", device)).status == 401


@pytest.mark.parametrize(
    ("arguments", "password", "code"),
    [
        (["user", "add", "no address", "--password-stdin"], PASSWORD, 16),
        (["user", "add", "new@example.org", "--password-stdin"], "seven77", 16),
        (["user", "add", "new@example.org", "--password-stdin"], "", 16),
        (["user", "add", "new@example.org", "--password-stdin", "--quota", str(2**63)], PASSWORD, 16),
        (["user", "add", "new@example.org", "--password-stdin", "--quota", "-1"], PASSWORD, 2),
        (["user", "add", "new@example.org"], "", 2),
        (["device", "list", "nobody@example.org"], "", 13),
        (["device", "revoke", str(uuid.UUID(int=1))], "", 13),
        (["device", "revoke", "nonsense"], "", 2),
    ],
)
async def test_what_cannot_be_done_has_a_code_of_its_own(admin, arguments, password, code):
    found, out, error = await admin(*arguments, password=password)
    assert found == code, error
    assert out == ""
    assert error
    assert PASSWORD not in error


async def test_without_a_terminal_it_is_said_how_the_password_comes(admin):
    code, _, error = await admin("user", "add", "new@example.org", password=PASSWORD)
    assert code == 2
    assert "There is no terminal to ask for the password: use --password-stdin." in error


async def test_an_account_that_exists_is_not_touched(house, admin):
    email = await house.person()
    code, _, error = await admin(
        "user", "add", email.upper(), "--password-stdin", password="another password"
    )
    assert code == 17
    assert "already" in error
    await house.link(email)


async def test_settings_come_from_the_local_stacks_file(house, admin, settings, tmp_path):
    stack = tmp_path / "stack"
    for folder in (stack, tmp_path / ".hutch-data"):
        folder.mkdir()
        (folder / "admin.json").write_text(json.dumps(settings))
    named = {"HUTCH_DATA": str(stack), "HUTCH_POSTGRES_DSN": "postgresql://127.0.0.1:9/elsewhere"}
    assert (await admin("user", "list", environment=named))[0] == 0
    assert (await admin("user", "list", environment={}))[0] == 0


async def test_settings_that_are_missing_or_lead_nowhere_are_named(admin, tmp_path):
    code, _, error = await admin("user", "list", environment={})
    assert code == 78
    assert "admin.json" in error
    code, _, error = await admin("user", "list", environment={"HUTCH_DATA": str(tmp_path / "no")})
    assert code == 78
    code, _, error = await admin(
        "user", "list", environment={"HUTCH_POSTGRES_DSN": "postgresql://u:planted@127.0.0.1:9/x"}
    )
    assert code == 10
    assert "planted" not in error
    assert "deploy/local" not in error


async def test_a_stack_that_is_down_is_told_from_a_service_that_is_run_by_other_means(admin, tmp_path):
    nobody_there = {"HUTCH_POSTGRES_DSN": "postgresql://u:planted@127.0.0.1:9/x"}
    (tmp_path / "admin.json").write_text(json.dumps(nobody_there))
    for command in (["user", "list"], ["migrate"], ["restored"]):
        code, _, error = await admin(*command, environment={"HUTCH_DATA": str(tmp_path)})
        assert code == 10
        assert "deploy/local up" in error
        assert "planted" not in error


async def test_after_a_restore_every_workspace_has_a_new_epoch(postgres_server, admin):
    dsn = await make_database(postgres_server)
    connection = await asyncpg.connect(dsn)
    try:
        registry = Registry(connection)
        owner = await registry.add_user("one@example.org", "no hash")
        await connection.executemany(
            "INSERT INTO workspaces (workspace_id, owner_id, name, head_chain, epoch) VALUES ($1, $2, $3, $4, $5)",
            [(uuid.uuid4(), owner, f"of epoch {epoch}", b"\0" * 32, epoch) for epoch in (1, 7)],
        )
        code, out, error = await admin("restored", environment={"HUTCH_POSTGRES_DSN": dsn})
        assert (code, out) == (0, "")
        assert error.endswith("workspaces: 2\n")
        epochs = await connection.fetch("SELECT epoch FROM workspaces ORDER BY epoch")
        assert [row["epoch"] for row in epochs] == [2, 8]
    finally:
        await connection.close()


async def test_it_migrates(postgres_server, admin):
    dsn = await postgres_server.create_database()
    assert (await admin("user", "list", environment={"HUTCH_POSTGRES_DSN": dsn}))[0] == 78
    assert (await admin("migrate", environment={"HUTCH_POSTGRES_DSN": dsn}))[0] == 0
    assert (await admin("user", "list", environment={"HUTCH_POSTGRES_DSN": dsn}))[0] == 0
    assert await make_database(postgres_server) != dsn

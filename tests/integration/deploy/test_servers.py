"""The servers' fixtures give what they promise."""

from __future__ import annotations

import json

import aio_pika
import asyncpg
import pytest
from aiobotocore.session import get_session

from tests.servers.fixtures import PostgresServer, RabbitMQServer, S3Server


async def test_databases_are_apart(postgres_server: PostgresServer) -> None:
    first, second = await postgres_server.create_database(), await postgres_server.create_database()
    connection = await asyncpg.connect(first)
    await connection.execute("CREATE TABLE here (id int)")
    await connection.close()
    connection = await asyncpg.connect(second)
    assert await connection.fetchval("SELECT to_regclass('here')") is None
    await connection.close()


async def test_a_message_goes_through_a_fresh_vhost(rabbitmq_server: RabbitMQServer) -> None:
    vhost = rabbitmq_server.create_vhost()
    connection = await aio_pika.connect(vhost.amqp_url, timeout=10)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("inbox", exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), "inbox", timeout=10)
        message = await queue.get(timeout=10)
        await message.ack()
        assert message.body == b"hello"


def test_the_broker_has_its_plugins_and_no_guest(rabbitmq_server: RabbitMQServer) -> None:
    users = json.loads(rabbitmq_server.call("GET", "/api/users"))
    names = {user["name"] for user in users}
    assert rabbitmq_server.server.user in names
    assert "guest" not in names
    overview = json.loads(rabbitmq_server.call("GET", "/api/overview"))
    assert {"http", "http/prometheus", "amqp"} <= {listener["protocol"] for listener in overview["listeners"]}


async def test_s3_checks_signatures(s3_server: S3Server) -> None:
    bucket = await s3_server.create_bucket()

    def client(secret: str):
        return get_session().create_client(
            "s3", endpoint_url=s3_server.endpoint, region_name=s3_server.region,
            aws_access_key_id=s3_server.access_key, aws_secret_access_key=secret,
        )  # fmt: skip

    async with client(s3_server.secret_key) as ours:
        await ours.put_object(Bucket=bucket, Key="pack", Body=b"bytes")
        answer = await ours.get_object(Bucket=bucket, Key="pack")
        assert await answer["Body"].read() == b"bytes"
    async with client("wrong") as theirs:
        with pytest.raises(theirs.exceptions.ClientError, match="SignatureDoesNotMatch"):
            await theirs.get_object(Bucket=bucket, Key="pack")

"""Messages of other programs in a queue of Celery's: dropped, and the next task is received."""

import base64
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
import redis
from django.conf import settings
from kombu import Connection, Consumer, Queue
from kombu.message import Message
from kombu.transport.redis import Channel

from compat.kombu_redis import TolerantTransport, drop_foreign_messages

drop_foreign_messages()
QUEUE = "foreign"


def task(**changes: Any) -> dict[str, Any]:  # noqa: ANN401  any JSON value
    """Return a message as Celery writes it."""
    return {
        "body": base64.b64encode(json.dumps([[], {}, {}]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "t", "id": "1", "argsrepr": "[]"},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "delivery_tag": "tag",
        },
        **changes,
    }


def with_property(**changes: Any) -> dict[str, Any]:  # noqa: ANN401  any JSON value
    return task(properties={**task()["properties"], **changes})


FOREIGN: list[bytes] = [
    b"garbage",
    b"",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"5",
    b"{}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"9" * 5000,
    b'{"__type__": "datetime", "__value__": 5}',
    b'{"__type__": "nothing", "__value__": {}}',
    *(
        json.dumps(message).encode()
        for message in (
            task(properties=None),
            task(properties=[]),
            task(properties={}),
            task(headers=None),
            task(headers={}),
            task(headers={"task": ["t"], "id": "1"}),
            task(headers={"task": "t"}),
            task(headers={"task": "t", "id": 5}),
            task(body=5),
            task(body=None),
            task(body="abc"),
            with_property(body_encoding="rot13"),
            with_property(body_encoding=[1]),
            with_property(delivery_tag=None),
            with_property(delivery_tag=["x"]),
            with_property(delivery_info=None),
            task(**{"content-type": 5}),
            task(**{"content-encoding": None}),
        )
    ),
]


def received(client: "redis.Redis[str]", *items: bytes) -> list[Message]:
    """Push the items and a task behind them; return what a consumer gets until that task."""
    messages: list[Message] = []
    url = settings.CELERY_BROKER_URL
    with Connection(url) as connection, connection.channel() as channel:
        queue = Queue(QUEUE, channel=channel, durable=False)
        queue.declare()
        for item in items:
            client.lpush(QUEUE, item)
        client.lpush(QUEUE, json.dumps(task(headers={"task": "last", "id": "2"})))
        with Consumer(channel, [queue], on_message=messages.append, no_ack=True):
            for _ in range(len(items) + 1):
                try:
                    connection.drain_events(timeout=5)
                except TimeoutError:
                    break
                if messages and messages[-1].headers["task"] == "last":
                    break
    client.flushall()
    return messages


def test_the_transport_is_the_one_in_use() -> None:
    with Connection(settings.CELERY_BROKER_URL) as connection:
        assert connection.get_transport_cls() is TolerantTransport


def test_every_foreign_message_is_dropped_and_the_task_behind_it_received(
    redis_client: "redis.Redis[str]", caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        messages = received(redis_client, *FOREIGN)
    assert [message.headers["task"] for message in messages] == ["last"]
    assert caplog.text.count("foreign message dropped queue=foreign") == len(FOREIGN)
    assert "garbage" not in caplog.text, "foreign texts are not logged"


def test_a_task_is_received_as_it_was_sent(redis_client: "redis.Redis[str]") -> None:
    first, last = received(redis_client, json.dumps(task()).encode())
    assert (first.headers["task"], last.headers["task"]) == ("t", "last")
    assert first.payload == [[], {}, {}]


def test_kombu_still_reads_in_the_method_that_is_replaced() -> None:
    """When it does not, the replacement is never called."""
    assert "_brpop_read" in vars(Channel)
    code = "import gemma_project.celery, kombu.transport; print(kombu.transport.TRANSPORT_ALIASES['redis'])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "compat.kombu_redis:TolerantTransport"

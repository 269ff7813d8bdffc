"""Values in Redis that another program wrote under our names: no answer ends with an error because of them."""

from collections.abc import Iterator

import pytest
import redis

from inference.gpu.coordinator import preemption, wait_queue
from inference.gpu.coordinator.silent_subscribers import KEY, SilentSubscribers
from inference.gpu.protocol import channels, presence
from inference.monitoring import worker_report
from inference.runtime import redis_client as clients
from inference.runtime.redis_client import WORKER_KEY
from tests.api.calling import Api

FOREIGN = [b"garbage", b"", b"\xff\xfe", b"null", b"[]", b"{}", b'{"pid": "x"}', b"[" * 100_000, b"9" * 5000]
NUMBERS = [b'["a", "b", "c", "d"]', b"[1, 2]", b"[1, 2, 3, null]", b"[1, 2, 3, 4, 5]", b"[[1], 2, 3, 4]"]


@pytest.fixture(autouse=True)
def nothing_left(redis_client: "redis.Redis[str]") -> Iterator[None]:
    yield
    redis_client.flushall()


@pytest.mark.parametrize("value", FOREIGN)
def test_a_report_that_is_none(redis_client: "redis.Redis[str]", value: bytes) -> None:
    redis_client.set(WORKER_KEY, value)
    assert worker_report.last_report() is None
    assert worker_report.mean_run_secs() > 0


@pytest.mark.parametrize("value", FOREIGN)
def test_waiters_tenants_and_counts(redis_client: "redis.Redis[str]", value: bytes) -> None:
    client = clients.gpu_client()
    client.zadd(wait_queue.QUEUE, {b"\xff\xfe": 1.0, b"token": 2.0})
    client.set(wait_queue.WAITER.encode() + b"\xff\xfe", value)
    client.set(wait_queue.WAITER + "token", value)
    client.set(channels.RESIDENTS_SEEN, value)
    client.sadd(presence.TENANTS, b"\xff", "instance")
    client.set(presence.TENANT + "instance", value)
    assert wait_queue.waiting(client) == []
    assert wait_queue.first(client) is not None
    assert isinstance(preemption.n_seen(client), int)
    assert all(isinstance(tenant, presence.Presence) for tenant in presence.present(client))


@pytest.mark.parametrize("value", FOREIGN + NUMBERS)
def test_what_was_learned_about_subscribers(redis_client: "redis.Redis[str]", value: bytes) -> None:
    silent = SilentSubscribers(clients.gpu_client(), "set", 60.0)
    redis_client.hset(KEY, "set", value)
    assert silent.count(3) == 0
    silent.learn(3, 1)
    assert silent._read().n_unknown == 3


@pytest.mark.parametrize("value", [b"[0,10,10,0]", b"[5,-1,10,0]", b"[-9,-9,10,0]", b"[2,3,9,0.5]"])
def test_more_silent_subscribers_than_there_are_count_as_none(redis_client: "redis.Redis[str]", value: bytes) -> None:
    redis_client.hset(KEY, "set", value)
    assert SilentSubscribers(clients.gpu_client(), "set", 5.0).count(3) == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("value", [*FOREIGN, *NUMBERS])
def test_health_has_an_answer_all_the_same(redis_client: "redis.Redis[str]", value: bytes) -> None:
    client = clients.gpu_client()
    redis_client.set(WORKER_KEY, value)
    client.zadd(wait_queue.QUEUE, {b"\xff": 1.0})
    client.set(wait_queue.WAITER.encode() + b"\xff", value)
    client.hset(KEY, "set", value)
    client.set(channels.RESIDENTS_SEEN, value)
    answer = Api().get("/health")
    assert answer.status == 503, "there is no worker"
    assert answer.body["worker"]["ok"] is False
    assert answer.body["gpu_coordinator"]["ok"] is True


@pytest.mark.django_db(transaction=True)
def test_a_value_of_another_type_is_a_dependency_that_fails(redis_client: "redis.Redis[str]") -> None:
    for key in (WORKER_KEY, wait_queue.QUEUE, KEY):
        redis_client.lpush(key, "x")
    answer = Api().get("/health")
    assert answer.status == 503
    assert answer.body["gpu_coordinator"]["ok"] is False

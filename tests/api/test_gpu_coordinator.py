"""The built-in coordinator over HTTP: both generations of the protocol, and its access rules."""

import asyncio
import time

import httpx
import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from inference.auth import service_token
from inference.runtime.redis_client import gpu_client
from tests.api.calling import Api
from tests.api.live import say
from tests.gpu.tenants import Transcription
from tests.live_stack import LiveStack

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_client")]

ACQUIRE = {"session_id": "s1", "requester": "ml-service", "priority": 1, "timeout_ms": 1000, "metadata": {}}
RELEASE = {"session_id": "s1", "requester": "ml-service", "result": {"tokens": 3}}
ROUTES: list[tuple[str, str, object]] = [
    ("POST", "/gpu/acquire", ACQUIRE),
    ("POST", "/gpu/renew", RELEASE),
    ("POST", "/gpu/release", RELEASE),
    ("GET", "/gpu/state", None),
    ("POST", "/gemma/request", {"task_id": "t1", "messages": [], "max_tokens": 1, "temperature": 0.0}),
    ("POST", "/gemma/release/t1", {}),
    ("GET", "/status", None),
    ("POST", "/admin/force-reset", None),
]


@pytest.fixture
def api() -> Api:
    return Api()


def test_the_second_generation_from_acquire_to_release(api: Api) -> None:
    assert api.get("/gpu/state").body["state"] == "transcription"
    granted = api.post("/gpu/acquire", ACQUIRE)
    assert granted.status == 200
    assert granted.body | {"wait_time_ms": 0, "acquired_at": ""} == {
        "success": True,
        "session_id": "s1",
        "acquired_at": "",
        "error": None,
        "wait_time_ms": 0,
        "lease_epoch": 1,
        "renew_within_ms": None,
        "protocol": 2,
    }
    seen = api.get("/gpu/state").body
    assert (seen["owner"], seen["session_id"], seen["requester"]) == ("ml-service", "s1", "ml-service")
    assert (seen["redis_connected"], seen["postgres_connected"], seen["lease_epoch"]) == (True, True, 1)
    released = api.post("/gpu/release", RELEASE)
    assert released.body["success"] is True
    assert released.body["session_duration_ms"] > 0
    assert api.post("/gpu/release", RELEASE).body["success"] is False
    assert api.get("/gpu/state").body["session_id"] is None


def test_a_refusal_has_an_error_status_and_says_why(api: Api) -> None:
    api.post("/gpu/acquire", ACQUIRE)
    refused = api.post("/gpu/acquire", ACQUIRE | {"session_id": "s2"})
    assert (refused.status, refused.body["success"]) == (409, False)
    assert refused.body["error"] == "ml-service holds the GPU"
    assert refused.body["acquired_at"] is None
    assert refused.body["wait_time_ms"] >= 900


def test_the_first_generation_from_request_to_release(api: Api) -> None:
    body = {"task_id": "t1", "messages": [], "max_tokens": 1, "temperature": 0.0, "context": []}
    assert api.post("/gemma/request", body).body["status"] == "gpu_acquired"
    lock = api.get("/status").body["lock_status"]
    assert (lock["state"], lock["current_owner"], lock["current_task"]) == ("gemma", "gemma-service", "t1")
    assert api.post("/gemma/release/t1", {"anything": 1}).body == {"status": "released", "task_id": "t1"}
    assert api.get("/status").body["lock_status"]["state"] == "transcription"


def test_the_first_generation_refuses_with_500(api: Api, settings: Settings) -> None:
    settings.GPU_PAUSE_TIMEOUT = 0.2
    resident = Transcription(gpu_client(), answers=False)
    try:
        refused = api.post("/gemma/request", {"task_id": "t1"})
        assert refused.status == 500
        assert "did not answer" in refused.body["detail"]
    finally:
        resident.leave()


def test_a_tenant_that_renews_keeps_it_and_one_that_stops_loses_it(api: Api, settings: Settings) -> None:
    settings.GPU_LEASE_TTL_SECS = 0.4
    granted = api.post("/gpu/acquire", ACQUIRE | {"metadata": {"renews": True}})
    assert granted.body["renew_within_ms"] == 400
    assert api.post("/gpu/renew", RELEASE).body["success"] is True
    assert api.post("/gpu/renew", RELEASE | {"session_id": "other"}).body["success"] is False
    second = api.post("/gpu/acquire", ACQUIRE | {"session_id": "s2", "timeout_ms": 5000})
    assert second.body["success"] is True  # a waiting request makes a dead owner lose it
    assert api.post("/gpu/renew", RELEASE).body["success"] is False


def test_a_reset_by_hand(api: Api) -> None:
    api.post("/gpu/acquire", ACQUIRE)
    assert api.post("/admin/force-reset").body == {"status": "reset", "lease_epoch": 1}
    assert api.get("/gpu/state").body["session_id"] is None
    assert api.call("GET", "/admin/force-reset").outcome == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"session_id": ""}, "session_id"),
        ({"session_id": None}, "session_id"),
        ({"priority": "IMMEDIATE"}, "priority"),
        ({"priority": 3}, "priority"),
        ({"timeout_ms": 999}, "timeout_ms"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(api: Api, change: dict[str, object], field: str) -> None:
    answer = api.post("/gpu/acquire", ACQUIRE | change)
    assert (answer.status, answer.body["error"]["field"]) == (400, field)
    assert api.get("/gpu/state").body["session_id"] is None


class TestWhoMaySpeak:
    @pytest.mark.parametrize(("method", "path", "body"), ROUTES)
    def test_with_keys_a_token_is_needed(
        self, api: Api, settings: Settings, method: str, path: str, body: object
    ) -> None:
        settings.JWT_SECRET = "k" * 32
        assert api.call(method, path, body).status == 401
        wrong = {"X-Service-Token": service_token.mint("somebody") or ""}
        assert api.call(method, path, body, headers=wrong).outcome == (401, "service_token_refused")
        settings.JWT_ONLY = True  # tenants have nothing else to show
        right = {"X-Service-Token": service_token.mint("gemma-service") or ""}
        assert api.call(method, path, body, headers=right).status == 200
        assert api.call(method, path, body, headers=right).status == 401  # a second time

    @pytest.mark.parametrize(("method", "path", "body"), ROUTES)
    def test_people_who_only_chat_may_not(self, api: Api, method: str, path: str, body: object) -> None:
        api.log_in(User.objects.create_user("ann", password="x"))
        assert api.call(method, path, body).outcome == (403, "forbidden")

    @pytest.mark.parametrize(("method", "path", "body"), ROUTES)
    def test_strangers_may_not(self, method: str, path: str, body: object) -> None:
        assert Api("10.1.2.3").call(method, path, body).status == 401

    def test_staff_may(self, api: Api) -> None:
        api.log_in(User.objects.create_user("op", password="x", is_staff=True))
        assert api.get("/gpu/state").status == 200

    @pytest.mark.parametrize(("method", "path", "body"), ROUTES)
    def test_with_a_coordinator_elsewhere_there_is_none_here(
        self, api: Api, settings: Settings, method: str, path: str, body: object
    ) -> None:
        settings.GPU_COORDINATOR_URL = "http://gpu-coordinator:8002"
        assert api.call(method, path, body).outcome == (404, "no_coordinator")


async def test_twenty_who_wait_hold_up_nobody_and_who_leaves_leaves_no_trace(fake_stack: LiveStack) -> None:
    async with httpx.AsyncClient(base_url=fake_stack.url, timeout=60) as client:

        async def waiting() -> int:
            return len((await client.get("/gpu/state")).json()["waiting"])

        async def until_waiting(wanted: int) -> None:
            deadline = time.monotonic() + 20
            while (found := await waiting()) != wanted:
                assert time.monotonic() < deadline, f"{found} wait, not {wanted}"
                await asyncio.sleep(0.05)

        assert (await client.post("/gpu/acquire", json=ACQUIRE)).json()["success"] is True
        others = [
            asyncio.create_task(
                client.post("/gpu/acquire", json=ACQUIRE | {"session_id": str(n), "timeout_ms": 60_000})
            )
            for n in range(20)
        ]
        await until_waiting(20)
        answer = await client.post("/chat", json=say("not held up"))
        assert answer.json()["response"] == "not held up"
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await until_waiting(0)
        assert (await client.post("/gpu/release", json=RELEASE)).json()["success"] is True
        assert (await client.get("/gpu/state")).json()["session_id"] is None

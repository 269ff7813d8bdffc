"""/warmup, /move-to-cpu and /release-session: commands to the worker, answered from its report."""

import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIRequest
from pytest_django import Settings

from chat.api import model_placement_views
from inference.auth import service_token
from inference.monitoring import worker_report
from inference.runtime.redis_client import shared_client, sync_client
from inference.worker import gpu_commands
from inference.worker.gpu_commands import (
    GPU_COMMAND_CHANNEL,
    GpuCommand,
    GpuHoldCommand,
    GpuYieldCommand,
    SessionReleaseCommand,
)
from tests.api.calling import Api
from tests.gpu.lease_client_contract import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_client")]

ROUTES = ("/warmup", "/move-to-cpu", "/release-session")


class Worker:
    """A worker as web processes see one: it hears commands and writes reports."""

    def __init__(self, *, card: str | None = "simulated card", refuses: str = "") -> None:
        self.state: dict[str, Any] = {"model_loaded": True, "card": card, "model_on_gpu": False}
        self.refuses = refuses
        self.heard: list[GpuCommand] = []
        self._pubsub = sync_client().pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(GPU_COMMAND_CHANNEL)
        self._pubsub.get_message(timeout=1.0)
        self.report()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def report(self) -> None:
        worker_report.publish(worker_report.WorkerReport(pid=1, n_card_commands=len(self.heard), **self.state))

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._pubsub.close()

    def hold(self, session_id: str, secs: float) -> None:
        if self.refuses:
            self.state |= {
                "placement": {"state": "waiting", "reason": self.refuses},
                "coordinator": {"state": "refused"},
            }
        else:
            self.state |= {"model_on_gpu": True, "placement": {"state": "gpu", "reason": ""}}

    def release_session(self, session_id: str) -> None:
        """The linger decides."""

    def yield_gpu(self, reason: str) -> None:
        self.state |= {"model_on_gpu": False, "placement": {"state": "cpu", "reason": ""}}

    def _run(self) -> None:
        while not self._over.is_set():
            message = self._pubsub.get_message(timeout=0.02)
            if message is not None:
                gpu_commands.execute(self, message["data"])
                self.heard.append(msgspec.json.decode(message["data"], type=GpuCommand))
                self.report()


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(**options: Any) -> Worker:  # noqa: ANN401
        made.append(Worker(**options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def api() -> Api:
    return Api()


def test_there_and_back(api: Api, worker: Callable[..., Worker]) -> None:
    one = worker()
    assert api.post("/warmup").body == {"status": "ready", "model_on_gpu": True, "reason": None}
    assert api.post("/release-session", {"session_id": "talk"}).body == {"status": "released"}
    assert api.post("/move-to-cpu").body == {"status": "success", "model_on_gpu": False}
    assert api.post("/move-to-cpu").body == {"status": "already_on_cpu", "model_on_gpu": False}
    assert api.post("/release-session").body == {"status": "already_on_cpu"}
    until(lambda: len(one.heard) == 4)  # the last one is not waited for
    hold, release, leave, release_all = one.heard
    assert isinstance(hold, GpuHoldCommand)
    assert (hold.session_id, release, release_all) == (
        "warmup",
        SessionReleaseCommand("talk"),
        SessionReleaseCommand(""),
    )
    assert isinstance(leave, GpuYieldCommand)


def test_a_card_that_is_not_lent_leaves_it_ready_on_the_cpu(api: Api, worker: Callable[..., Worker]) -> None:
    worker(refuses="ml-service holds the GPU")
    answer = api.post("/warmup", {"session_id": "talk"}).body
    assert answer == {"status": "ready_cpu", "model_on_gpu": False, "reason": "ml-service holds the GPU"}


def test_without_a_card_it_is_ready_on_the_cpu(api: Api, worker: Callable[..., Worker]) -> None:
    one = worker(card=None)
    answer = api.post("/warmup").body
    assert (answer["status"], answer["reason"]) == ("ready_cpu", "this service has no GPU")
    assert one.heard == []


@pytest.mark.parametrize("path", ["/warmup", "/release-session"])
@pytest.mark.parametrize("session_id", [7, "", "x" * 129, "a\0b"])
def test_a_session_that_cannot_be_meant_is_refused_with_its_field(
    api: Api, worker: Callable[..., Worker], path: str, session_id: object
) -> None:
    one = worker(card=None)
    answer = api.post(path, {"session_id": session_id})
    assert (answer.status, answer.body["error"]["field"]) == (400, "session_id")
    assert one.heard == []


def test_a_body_that_announces_no_length_is_read_all_the_same() -> None:
    """Read as no session, it would release all sessions."""
    scope = {"type": "http", "method": "POST", "path": "/release-session"}
    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    request = ASGIRequest({**scope, "headers": headers}, BytesIO(b'{"session_id": "talk"}'))
    assert model_placement_views._session(request) == "talk"
    assert model_placement_views._session(ASGIRequest({**scope, "headers": []}, BytesIO())) == ""


@pytest.mark.parametrize("path", ROUTES)
def test_without_a_worker_it_is_unavailable(api: Api, path: str) -> None:
    answer = api.post(path)
    assert answer.outcome == (503, "no_worker")
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize("path", ROUTES)
def test_people_who_only_chat_may_not(api: Api, worker: Callable[..., Worker], path: str) -> None:
    worker()
    api.log_in(User.objects.create_user("ann", password="x"))
    assert api.post(path).outcome == (403, "forbidden")
    assert Api("10.1.2.3").post(path).status == 401
    assert api.get(path).status == 405


@pytest.mark.parametrize("data", [b"{}", b"x", b'{"type":"sell"}'])
def test_what_is_no_command_is_not_obeyed(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        gpu_commands.execute(Worker.__new__(Worker), data)


def test_nobody_listens() -> None:
    assert gpu_commands.send(SessionReleaseCommand("")) is False
    assert shared_client().get("gemma:worker") is None


@pytest.mark.parametrize("path", ROUTES)
def test_with_keys_strangers_may_not_move_the_model(
    api: Api, worker: Callable[..., Worker], settings: Settings, path: str
) -> None:
    one = worker()
    settings.JWT_SECRET = "k" * 32
    assert api.post(path).status == 401
    assert one.heard == []
    token = {"X-Service-Token": service_token.mint("gateway") or ""}
    assert api.call("POST", path, None, headers=token).status == 200

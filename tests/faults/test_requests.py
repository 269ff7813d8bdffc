"""Random requests to every route are answered, or refused in JSON; a refused one stores nothing."""

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from celery import current_app
from django.apps import apps
from django.db import connection
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from pytest_django import Settings

from chat.access import login_limit
from chat.streaming import background, disconnect, events
from inference.enums import FinishReason, Status
from inference.gpu.coordinator import api
from inference.monitoring.worker_report import WorkerReport
from inference.queue.notify import GENERATE_TASK
from inference.queue.results import Ending
from inference.queue.termination import terminate
from inference.runtime.redis_client import WORKER_KEY, gpu_client, shared_client
from tests.faults.conftest import IS_WHOLE_RUN, Seen
from tests.faults.fuzzing import FRAMES, ROUTES, Answer, Shot, Socket, send, shots

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

# The tests draw the same requests each time, `make faults` new ones.
N_REQUESTS = int(os.environ.get("FAULT_REQUESTS", "300"))
N_FRAMES = N_REQUESTS // 3
drawn = hypothesis_settings(
    max_examples=N_REQUESTS,
    deadline=None,
    derandomize=not IS_WHOLE_RUN,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
INTERNAL = "internal_error"
# Without the embedding model, as here, there are no vectors to give; and what the stack's service has and this one not.
REFUSALS = {"openai-embeddings": 503, **dict.fromkeys(("model-settings-update", "score-chunk"), 501)}
OURS = ("chat", "inference", "memory")
TABLES = [model._meta.db_table for model in apps.get_models() if model._meta.app_label in OURS]
TABLES += ["auth_user", "token_blacklist_outstandingtoken", "token_blacklist_blacklistedtoken", "django_session"]
COUNTS = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in TABLES)  # noqa: S608

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run(redis_client: object, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run a coroutine and the tasks that it leaves, in a service whose answers end with their wake-up message."""
    settings.STREAM_GRACE_SECS = 0.0
    settings.RAG_EMBEDDING_PATH = tmp_path / "none.onnx"  # found by words: a vector of each text would take its time
    settings.QUEUE_MAX = settings.QUEUE_MAX_PER_CALLER = 1_000_000
    for name in ("MAX_PER_NAME", "MAX_PER_ADDRESS"):
        monkeypatch.setattr(login_limit, name, 1_000_000)
    monkeypatch.setattr(current_app, "send_task", _end_at_once)
    monkeypatch.setattr(events, "expect_reader", lambda *_, **__: None)
    report = WorkerReport(pid=1, model_name="m", model_loaded=True)
    shared_client().set(WORKER_KEY, msgspec.json.encode(report))
    with asyncio.Runner() as runner:
        yield lambda work: runner.run(_with_rest(work))
    disconnect.shutdown.is_set = False


def _end_at_once(name: str, args: list[str], **_: object) -> None:
    if name == GENERATE_TASK:
        terminate(UUID(args[0]), Ending(Status.COMPLETE, FinishReason.STOP))


async def _with_rest(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
    result = await work
    while background._tasks:
        await asyncio.wait(background._tasks)
    return result


def stored() -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(COUNTS)
        return dict(cursor.fetchall())


def test_no_route_is_left_out() -> None:
    assert _names(get_resolver().url_patterns) == {route.name for route in ROUTES}


def _names(patterns: list[URLPattern | URLResolver]) -> set[str]:
    """Return all routes that answer with JSON; / does so for programs."""
    found: set[str] = set()
    for each in patterns:
        if isinstance(each, URLPattern):
            found.add(str(each.name))
        elif each.app_name not in ("admin", "pages"):
            found |= _names(each.url_patterns)
    return found


@pytest.mark.fault(
    "31",
    f"{N_REQUESTS} drawn requests over all routes: odd values, unknown fields, odd headers, paths, bytes",
    "answers, or refusals in JSON with a code and the field; no 5xx; nothing stored by what was refused",
)
@pytest.mark.timeout(120 + N_REQUESTS / 5)
def test_requests(run: Run, seen: Seen) -> None:
    statuses: Counter[int] = Counter()

    @drawn
    @given(shots())
    def one(shot: Shot) -> None:
        before = stored()
        answer: Answer = run(send(shot))
        statuses[answer.status] += 1
        assert answer.status < 500 or answer.status == REFUSALS.get(shot.route.name), (shot, answer)
        if answer.status >= 400:
            assert stored() == before, (shot, answer)
            assert_told(shot, answer)
        elif answer.headers.get("content-type", "").startswith("text/event-stream"):
            assert_ended(answer)
        if shot.path.startswith(("/gpu", "/gemma")):
            api.reset(gpu_client())  # the next acquisition would wait for this lease

    began = time.monotonic()
    one()
    seen |= {"statuses": dict(sorted(statuses.items())), "secs": round(time.monotonic() - began, 1)}
    assert statuses[200] > N_REQUESTS // 20, f"hardly anything was taken: {statuses}"


def assert_told(shot: Shot, answer: Answer) -> None:
    assert answer.headers["content-type"].startswith("application/json"), (shot, answer)
    assert answer.status != 429 or int(answer.headers["retry-after"]) > 0, (shot, answer)
    if shot.method == "HEAD":
        return
    error = json.loads(answer.body)["error"]
    assert (type(error["code"]), type(error["message"])) == (str, str)
    assert error["code"], shot
    assert error["message"], shot
    if shot.is_plain and error["code"] == "invalid_request":
        field = error["field"] if "field" in error else error["param"]
        assert re.split(r"[.\[]", field)[0] in shot.route.fields, (shot, error)


def assert_ended(answer: Answer) -> None:
    """Each line a token and a word on whether it is over; the last one is, without a failure of ours. OpenAI's streams
    end with [DONE], or with an error."""
    if b"chat.completion.chunk" in answer.body or b"text_completion" in answer.body:
        last = answer.body.decode().strip().rpartition("data: ")[2]
        assert last == "[DONE]" or json.loads(last)["error"]["code"] != INTERNAL
        return
    lines = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert all(isinstance(line["token"], str) for line in lines)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].get("error", {}).get("code") != INTERNAL


@pytest.mark.fault(
    "31",
    f"{N_FRAMES} drawn frames on one WebSocket",
    "each is answered to its end, none by a fault of ours; nothing stored by what was refused; the socket stays open",
)
@pytest.mark.timeout(120 + N_FRAMES / 5)
def test_frames(run: Run, seen: Seen) -> None:
    codes: Counter[str] = Counter()
    socket = Socket()
    run(socket.open())

    @hypothesis_settings(drawn, max_examples=N_FRAMES)
    @given(FRAMES)
    def one(frame: str | bytes) -> None:
        before = stored()
        last = run(socket.ask(frame))
        code = last.get("error", {}).get("code", "")
        codes[code] += 1
        assert code != INTERNAL, frame
        if last["type"] == "error" and "generation_id" not in last:
            assert stored() == before, (frame, last)

    one()
    run(socket.close())
    seen["codes"] = dict(codes.most_common())
    assert codes[""], f"nothing was taken: {codes}"

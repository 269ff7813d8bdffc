"""Django's internals that the API relies on."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.log import log_response

from compat.django_http import QuietHandler, is_loaded, without_log_line
from inference.models import Generation


async def leaves() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def test_django_s_own_handler_raises_when_a_client_leaves() -> None:
    """When it does not, QuietHandler can go."""
    with pytest.raises(RequestAborted):
        await ASGIHandler().listen_for_disconnect(leaves)


async def test_the_quiet_handler_cancels_the_view_of_a_client_that_left() -> None:
    cancelled = asyncio.Event()

    class Waiting(QuietHandler):
        async def get_response_async(self, request: object) -> HttpResponse:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            raise AssertionError

    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: object) -> None:
        raise AssertionError("no response for a client that left")

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "http_version": "1.1"}
    await asyncio.wait_for(Waiting()(scope, receive, send), 5)
    assert cancelled.is_set()


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_marked_response_is_not_logged_and_others_are(status: int, caplog: pytest.LogCaptureFixture) -> None:
    request = RequestFactory().get("/")
    log = logging.getLogger("tests.compat")
    log_response("unmarked", response=HttpResponse(status=status), request=request, logger=log)
    marked = without_log_line(HttpResponse(status=status))
    log_response("marked", response=marked, request=request, logger=log)
    assert [record.message for record in caplog.records] == ["unmarked"]


@pytest.mark.django_db
def test_a_related_object_is_loaded_after_it_was_read() -> None:
    user = User.objects.create(username="ada")
    kind = ContentType.objects.get_for_model(Generation)
    entry = LogEntry.objects.create(user_id=user.pk, content_type_id=kind.pk, action_flag=1, change_message="")
    fresh = LogEntry.objects.get(pk=entry.pk)
    assert not is_loaded(fresh, "user")
    assert fresh.user == user
    assert is_loaded(fresh, "user")
    assert not is_loaded(fresh, "content_type")
    assert is_loaded(LogEntry.objects.select_related("content_type").get(pk=entry.pk), "content_type")

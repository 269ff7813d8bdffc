"""The chain around the views: no thread for the API, the same headers and refusals as with Django's own."""

from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.contrib.auth.models import User
from django.contrib.staticfiles.storage import staticfiles_storage
from django.test import AsyncClient

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the functions that were called in a thread."""
    names: list[str] = []
    begin = SyncToAsync.__init__

    def note(self: SyncToAsync[Any, Any], func: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        names.append(getattr(func, "__qualname__", repr(func)))
        begin(self, func, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__init__", note)
    return names


async def test_no_step_of_the_api_s_middleware_takes_a_thread(threaded: list[str]) -> None:
    response = await AsyncClient().get("/chat")
    assert response.status_code == 405
    assert not [name for name in threaded if "process_" in name or "Middleware" in name or "get_response" in name]
    await AsyncClient().get("/admin/login/")
    assert any("process_" in name for name in threaded), "pages go Django's way"


async def test_answers_have_the_headers_of_every_middleware() -> None:
    response = await AsyncClient().get("/nothing")
    assert response.status_code == 404
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"


async def test_a_static_file_is_served_and_a_missing_one_is_not() -> None:
    client = AsyncClient()
    found = await client.get(staticfiles_storage.url("admin/css/base.css"))
    assert found.status_code == 200
    assert b"--primary" in found.getvalue()
    assert (await client.get("/static/nothing.css")).status_code == 404


async def test_a_session_without_its_token_is_refused_what_changes_something() -> None:
    user = await User.objects.acreate_user("ada", password="pw")
    client = AsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(user)
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    refused = await client.post("/chat", body, content_type="application/json")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "csrf_failed")
    page = await client.post("/admin/logout/")
    assert page.status_code == 403


async def test_a_session_that_ended_loses_its_cookie() -> None:
    user = await User.objects.acreate_user("ada", password="pw")
    client = AsyncClient()
    await client.aforce_login(user)
    await client.session.aflush()
    response = await client.get("/api/conversations/")
    assert response.status_code == 200, "as the local identity"
    assert response.cookies["sessionid"]["max-age"] == 0

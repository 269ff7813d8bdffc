"""Errors as pages for people, as JSON for programs; and the short addresses that browsers try."""

import pytest
from django.test import Client

from tests.api.people import make_user
from tests.pages.test_chat_page import BROWSER

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/nothing", "/admin/nothing/", "/sign-in/nothing", "/" + "x" * 3000, "/%3Cb%3E"])
def test_nothing_is_there(path: str) -> None:
    client = Client()
    user = make_user()
    user.is_staff = True
    user.save()
    client.force_login(user)
    response = client.get(path, headers=BROWSER)
    page = response.content.decode()
    assert response.status_code == 404
    assert "There is nothing here" in page
    assert 'href="/"' in page
    assert "<b>" not in page
    assert "unsafe" not in response["Content-Security-Policy"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_program_gets_json(accept: str) -> None:
    response = Client().get("/nothing", headers={"Accept": accept} if accept else {})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/api/conversations/1/", "/chat/stream/1"])
def test_an_object_that_does_not_exist_is_json_for_all(path: str) -> None:
    response = Client().get(path, headers=BROWSER)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_in_german() -> None:
    page = Client().get("/nothing", headers={**BROWSER, "Accept-Language": "de"}).content.decode()
    assert "Hier ist nichts" in page


def test_a_page_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the test")

    monkeypatch.setattr("chat.pages.views.next_page", fail)
    response = Client(raise_request_exception=False).get("/sign-in/")
    assert response.status_code == 500
    assert "Something went wrong" in response.content.decode()
    assert "a fault of the test" not in response.content.decode()


@pytest.mark.parametrize(
    ("path", "target"), [("/favicon.ico", "/static/pages/icon.svg"), ("/docs", "/api/docs/"), ("/docs/", "/api/docs/")]
)
def test_short_addresses(path: str, target: str) -> None:
    response = Client().get(path)
    assert response.status_code in (301, 302)
    assert response["Location"].rstrip("/") == target.rstrip("/")

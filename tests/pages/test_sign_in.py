"""Sign-in and sign-out by session."""

import pytest
from django.test import Client
from redis import Redis

from chat.access.login_limit import MAX_PER_NAME
from tests.api.people import PASSWORD, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]
OTHER_HOST = "203.0.113.7"


def attempt(client: Client, *, password: str = PASSWORD, target: str = "") -> tuple[int, str]:
    """Return status and destination of an attempt to sign in."""
    form = {"username": "ann", "password": password, "next": target}
    response = client.post("/sign-in/", form, REMOTE_ADDR=OTHER_HOST)
    return response.status_code, response.headers.get("Location", "")


def is_signed_in(client: Client) -> bool:
    return client.get("/api/conversations/", REMOTE_ADDR=OTHER_HOST).status_code == 200


def test_the_right_password_begins_a_session() -> None:
    make_user()
    client = Client()
    assert not is_signed_in(client)
    assert attempt(client) == (302, "/")
    assert is_signed_in(client)
    client.post("/sign-out/", REMOTE_ADDR=OTHER_HOST)
    assert not is_signed_in(client)


@pytest.mark.parametrize("password", ["wrong", "", "x" * 5000, "\0", PASSWORD + "\0"])
def test_a_wrong_one_does_not(password: str) -> None:
    make_user()
    client = Client()
    assert attempt(client, password=password)[0] == 200
    assert not is_signed_in(client)


def test_an_inactive_user_stays_outside() -> None:
    user = make_user()
    user.is_active = False
    user.save()
    client = Client()
    assert attempt(client)[0] == 200
    assert not is_signed_in(client)


@pytest.mark.parametrize(
    ("target", "destination"),
    [
        ("/?c=1", "/?c=1"),
        ("", "/"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_the_way_leads_to_this_service(target: str, destination: str) -> None:
    make_user()
    assert attempt(Client(), target=target) == (302, destination)


def test_guesses_are_limited() -> None:
    make_user()
    client = Client()
    outcomes = [attempt(client, password=f"guess {number}")[0] for number in range(MAX_PER_NAME + 1)]
    assert outcomes == [200] * MAX_PER_NAME + [429]
    assert attempt(client)[0] == 429
    client.cookies["django_language"] = "de"
    response = client.post("/sign-in/", {"username": "ann", "password": PASSWORD}, REMOTE_ADDR=OTHER_HOST)
    assert "zu viele Fehlversuche" in response.content.decode()


def test_successes_do_not_count(redis_client: "Redis[str]") -> None:
    make_user()
    for _ in range(MAX_PER_NAME + 2):
        assert attempt(Client()) == (302, "/")


@pytest.mark.parametrize("path", ["/sign-in/", "/sign-out/"])
def test_both_need_the_csrf_token(path: str) -> None:
    make_user()
    response = Client(enforce_csrf_checks=True).post(path, {"username": "ann", "password": PASSWORD})
    assert response.status_code == 403
    assert "reload the page" in response.content.decode()


def test_a_link_does_not_sign_out() -> None:
    client = Client()
    client.force_login(make_user())
    assert client.get("/sign-out/").status_code == 405
    assert is_signed_in(client)


def test_the_session_is_a_new_one() -> None:
    """Whoever planted a session id knows nothing of the session afterwards."""
    make_user()
    client = Client()
    client.cookies["sessionid"] = "planted0planted0planted0planted0"
    attempt(client)
    assert client.cookies["sessionid"].value != "planted0planted0planted0planted0"

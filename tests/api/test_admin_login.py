"""Logins to the admin: limited as those of the API, and the page that makes the first user once."""

import threading
from pathlib import Path

import pytest
import redis
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.http.response import HttpResponseBase
from django.test import Client
from pytest_django import Settings

from chat.access import client_address, login_limit
from chat.access.client_address import NO_ADDRESS, address_of
from gemma_project.environment import Environment
from gemma_project.startup import NotReady, check_callers
from tests.api.calling import Api
from tests.api.people import PASSWORD, make_user

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"
NEW_USER = {"username": "root", "password1": "a rather long password", "password2": "a rather long password"}


@pytest.fixture(autouse=True)
def _no_counters(redis_client: "redis.Redis[str]") -> None:
    """Earlier failures must not count."""


def log_in(password: str, *, name: str = "ann", address: str = "127.0.0.1", **headers: str) -> HttpResponseBase:
    client = Client(REMOTE_ADDR=address, headers=headers)
    return client.post(LOGIN, {"username": name, "password": password})


@pytest.fixture
def operator() -> User:
    user = make_user()
    user.is_staff = user.is_superuser = True
    user.save()
    return user


class TestGuessing:
    def test_ten_failures_and_no_more(self, operator: User) -> None:
        for _ in range(login_limit.MAX_PER_NAME):
            assert log_in("wrong").status_code == 200
        response = log_in(PASSWORD)  # the right password comes too late
        assert response.status_code == 429
        assert int(response.headers["Retry-After"]) >= 1
        assert b"too many failed logins" in response.content  # type: ignore[attr-defined]
        assert log_in(PASSWORD, address="203.0.113.8").status_code == 302, "others are not locked out with it"

    def test_both_ways_in_count_together(self, operator: User) -> None:
        for _ in range(login_limit.MAX_PER_NAME):
            log_in("wrong")
        assert Api().post("/api/token/", {"username": "ann", "password": PASSWORD}).status == 429

    def test_success_does_not_count(self, operator: User) -> None:
        assert [log_in(PASSWORD).status_code for _ in range(12)] == [302] * 12

    def test_a_user_who_is_no_operator(self) -> None:
        make_user()
        assert [log_in(PASSWORD).status_code for _ in range(12)] == [200] * 10 + [429] * 2

    def test_without_redis_there_are_no_logins(self, operator: User, monkeypatch: pytest.MonkeyPatch) -> None:
        away = redis.Redis.from_url("unix:///nonexistent/valkey.sock")
        monkeypatch.setattr(login_limit, "shared_client", lambda: away)
        assert log_in(PASSWORD).status_code == 503


class TestBehindAProxy:
    def test_one_guesser_does_not_lock_an_account_for_all(self, operator: User) -> None:
        """Also when the proxy is not listed: the address that it reports keeps its clients apart."""
        for _ in range(login_limit.MAX_PER_NAME + 1):
            log_in("wrong", **{"X-Forwarded-For": "198.51.100.1"})
        assert log_in(PASSWORD, **{"X-Forwarded-For": "198.51.100.2"}).status_code == 302
        assert log_in(PASSWORD, **{"X-Forwarded-For": "198.51.100.1"}).status_code == 429

    def test_a_listed_proxy_has_clients_with_limits_of_their_own(self, operator: User, settings: Settings) -> None:
        settings.TRUSTED_PROXIES = Environment({}).networks("X", "127.0.0.0/8")
        for number in range(login_limit.MAX_PER_ADDRESS):
            login_limit.take("198.51.100.1", f"user{number}")
        assert log_in(PASSWORD, **{"X-Forwarded-For": "198.51.100.1"}).status_code == 429
        assert log_in(PASSWORD, **{"X-Forwarded-For": "198.51.100.2"}).status_code == 302

    @pytest.mark.parametrize(
        ("peer", "forwarded", "address"),
        [
            ("203.0.113.7", "", "203.0.113.7"),
            ("203.0.113.7", "198.51.100.1", "203.0.113.7"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "1.2.3.4, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("fe80::1%eth0", "", "fe80::"),
            ("", "198.51.100.1", NO_ADDRESS),
            (None, "", NO_ADDRESS),
        ],
    )
    def test_whose_address_counts(self, peer: str | None, forwarded: str, address: str, settings: Settings) -> None:
        settings.TRUSTED_PROXIES = Environment({}).networks("X", "10.0.0.0/8")
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        assert address_of(peer, headers) == address

    def test_a_reported_address_is_one(self) -> None:
        for text, address in (("a, 1.2.3.4", "1.2.3.4"), ("x" * 9999, ""), ("", "")):
            assert client_address.reported_address({"X-Forwarded-For": text}) == address


class TestFirstUser:
    @pytest.fixture
    def link(self, settings: Settings, tmp_path: Path) -> str:
        settings.FIRST_USER_TOKEN_FILE = tmp_path / "first_user_token"
        settings.FIRST_USER_TOKEN_FILE.write_text("a-secret\n")
        return "/admin/first-user/a-secret/"

    def test_it_works_once(self, link: str) -> None:
        client = Client(enforce_csrf_checks=True)
        page = client.get(link)
        assert page.status_code == 200
        assert "no-store" in page["Cache-Control"]
        assert client.post(link, NEW_USER).status_code == 403, "without the page's token"
        token = client.cookies["csrftoken"].value
        assert client.post(link, {**NEW_USER, "csrfmiddlewaretoken": token}).status_code == 302
        user = User.objects.get()
        assert (user.username, user.is_superuser, user.is_staff) == ("root", True, True)
        assert user.check_password(NEW_USER["password1"])
        assert client.get(link).status_code == 404

    def test_wrong_links_and_weak_passwords(self, link: str) -> None:
        for wrong in ("x", "a-secre", "a-secret2", "%00"):
            assert Client().get(f"/admin/first-user/{wrong}/").status_code == 404
        weak = {"username": "root", "password1": "root", "password2": "root"}
        assert Client().post(link, weak).status_code == 200
        assert not User.objects.exists()

    def test_not_beside_an_operator_who_came_another_way(self, link: str, operator: User) -> None:
        assert Client().get(link).status_code == 404
        assert Client().post(link, NEW_USER).status_code == 404
        assert User.objects.count() == 1

    def test_there_is_no_page_without_a_link(self, settings: Settings, tmp_path: Path) -> None:
        settings.FIRST_USER_TOKEN_FILE = tmp_path / "none"
        assert Client().get("/admin/first-user/None/").status_code == 404


@pytest.mark.django_db(transaction=True)
def test_of_parallel_first_users_one_is_made(settings: Settings, tmp_path: Path) -> None:
    settings.FIRST_USER_TOKEN_FILE = tmp_path / "first_user_token"
    settings.FIRST_USER_TOKEN_FILE.write_text("a-secret\n")
    gate = threading.Barrier(4)

    def make(number: int) -> None:
        client = Client(raise_request_exception=False)
        gate.wait()
        try:
            client.post("/admin/first-user/a-secret/", {**NEW_USER, "username": f"root{number}"})
        finally:
            connection.close()

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert User.objects.filter(is_superuser=True).count() == 1


class TestOpenPort:
    """A port that other machines reach, and nothing that a caller there could show."""

    def test_it_is_refused(self, settings: Settings) -> None:
        settings.GEMMA_HOST = "0.0.0.0"
        for jwt_only in (False, True):
            settings.JWT_ONLY = jwt_only
            with pytest.raises(NotReady, match="make superuser"):
                check_callers()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("JWT_SECRET_PREVIOUS", "x" * 32),
            ("ANONYMOUS_NETWORKS", Environment({}).networks("X", "10.0.0.0/8")),
            ("GEMMA_HOST", "127.0.0.1"),
        ],
    )
    def test_each_kind_of_credential_opens_it(self, name: str, value: object, settings: Settings) -> None:
        settings.GEMMA_HOST = "192.0.2.1"
        setattr(settings, name, value)
        check_callers()

    def test_a_user_opens_it(self, settings: Settings) -> None:
        settings.GEMMA_HOST = "192.0.2.1"
        make_user()
        check_callers()


def test_the_deployment_check_is_clean(settings: Settings) -> None:
    call_command("check", deploy=True, fail_level="WARNING")

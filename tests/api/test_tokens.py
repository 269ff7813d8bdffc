"""Login and refresh: pairs of tokens, each refresh token valid once, and the effect of reuse."""

import threading
from collections.abc import Callable
from typing import TypeVar

import jwt
import pytest
import redis
from django.contrib.auth.models import User
from django.db import connection
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from chat.access import login_limit
from chat.errors import TooManyRequests
from tests.api.calling import Answer, Api
from tests.api.people import PASSWORD, access_token, bearer, make_user, refresh_token

LOGIN, REFRESH = "/api/token/", "/api/token/refresh/"


@pytest.fixture(autouse=True)
def _no_counters(redis_client: "redis.Redis[str]") -> None:
    """Earlier failures must not count."""


def post(url: str, body: dict[str, object]) -> Answer:
    return Api().post(url, body)


def log_in(name: str = "ann", password: str = PASSWORD, *, address: str = "127.0.0.1") -> Answer:
    return Api(address).post(LOGIN, {"username": name, "password": password})


@pytest.mark.django_db
class TestLogin:
    def test_a_pair_that_works(self) -> None:
        make_user()
        pair = log_in().body
        assert set(pair) == {"access", "refresh", "expires_in", "refresh_expires_in"}
        claims = jwt.decode(pair["access"], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == pair["expires_in"] == 300
        assert Api().get("/api/conversations/", bearer(pair["access"])).status == 200

    @pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("nobody", PASSWORD), ("ANN\u0131", "x")])
    def test_wrong_ones_are_told_the_same(self, name: str, password: str) -> None:
        make_user()
        response = log_in(name, password)
        assert response.outcome == (401, "wrong_credentials")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")

    def test_a_disabled_account(self) -> None:
        User.objects.filter(pk=make_user().pk).update(is_active=False)
        assert log_in().status == 401

    @pytest.mark.parametrize(
        "body", [{}, {"username": "ann"}, {"username": 7, "password": "x"}, {"username": "", "password": ""}]
    )
    def test_bad_bodies(self, body: dict[str, object]) -> None:
        response = post(LOGIN, body)
        assert response.outcome == (400, "invalid_request")

    def test_old_tokens_are_cleared_away(self) -> None:
        user = make_user()
        log_in()
        OutstandingToken.objects.update(expires_at="2020-01-01T00:00:00Z")
        log_in()
        assert OutstandingToken.objects.filter(user=user).count() == 1


@pytest.mark.django_db
class TestGuessing:
    def test_ten_failures_and_no_more(self) -> None:
        make_user()
        for _ in range(login_limit.MAX_PER_NAME):
            assert log_in(password="wrong").status == 401
        response = log_in()  # the right password comes too late
        assert response.outcome == (429, "login_throttled")
        assert 1 <= int(response.headers["Retry-After"]) <= login_limit.WINDOW_SECS

    def test_others_are_not_locked_out_with_it(self) -> None:
        make_user()
        for _ in range(login_limit.MAX_PER_NAME + 1):
            log_in(password="wrong", address="203.0.113.7")
        assert log_in(address="203.0.113.8").status == 200

    def test_one_address_cannot_try_many_names(self) -> None:
        for number in range(login_limit.MAX_PER_ADDRESS):
            login_limit.take("203.0.113.7", f"user{number}")
        response = log_in("another", address="203.0.113.7")
        assert response.status == 429

    def test_success_does_not_count(self) -> None:
        make_user()
        for _ in range(login_limit.MAX_PER_NAME + 2):
            assert log_in().status == 200

    def test_without_redis_nobody_gets_to_try(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nobody = redis.Redis.from_url("unix:///nonexistent/valkey.sock")
        monkeypatch.setattr(login_limit, "shared_client", lambda: nobody)
        make_user()
        response = log_in()
        assert response.outcome == (503, "store_unavailable")
        assert response.headers["Retry-After"]


T = TypeVar("T")


def in_parallel(n: int, work: Callable[[], T]) -> list[T]:
    """Return the results of ``work`` in n threads that begin together."""
    results: list[T] = []
    gate = threading.Barrier(n)

    def run() -> None:
        gate.wait()
        try:
            results.append(work())
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_a_hundred_parallel_guesses_get_exactly_the_limit() -> None:
    def guess() -> bool:
        try:
            login_limit.take("203.0.113.7", "ann")
        except TooManyRequests:
            return False
        return True

    assert sum(in_parallel(100, guess)) == login_limit.MAX_PER_NAME


@pytest.mark.django_db
class TestRefresh:
    def test_the_next_pair(self) -> None:
        user = make_user()
        first = refresh_token(user)
        pair = post(REFRESH, {"refresh": first}).body
        assert pair["refresh"] != first
        assert Api().get("/api/conversations/", bearer(pair["access"])).status == 200
        assert post(REFRESH, {"refresh": pair["refresh"]}).status == 200

    def test_a_second_use_ends_the_family(self) -> None:
        first = refresh_token(make_user())
        second = post(REFRESH, {"refresh": first}).body["refresh"]
        response = post(REFRESH, {"refresh": first})
        assert response.outcome == (401, "token_reused")
        assert post(REFRESH, {"refresh": second}).status == 401

    def test_other_logins_of_the_user_go_on(self) -> None:
        user = make_user()
        first, other = refresh_token(user), refresh_token(user)
        post(REFRESH, {"refresh": first})
        post(REFRESH, {"refresh": first})
        assert post(REFRESH, {"refresh": other}).status == 200

    @pytest.mark.parametrize("body", [{}, {"refresh": 7}, {"refresh": ""}, {"refresh": None}])
    def test_bad_bodies(self, body: dict[str, object]) -> None:
        assert post(REFRESH, body).status == 400

    @pytest.mark.parametrize("token", ["x", "a.b.c", "ü", "x" * 4000])
    def test_what_is_no_token(self, token: str) -> None:
        response = post(REFRESH, {"refresh": token})
        assert response.outcome == (401, "invalid_token")

    def test_an_access_token_refreshes_nothing(self) -> None:
        assert post(REFRESH, {"refresh": access_token(make_user())}).status == 401

    def test_after_a_change_of_password(self) -> None:
        user = make_user()
        token = refresh_token(user)
        user.set_password("another long password")
        user.save()
        assert post(REFRESH, {"refresh": token}).status == 401
        assert not BlacklistedToken.objects.exists()

    def test_a_disabled_user(self) -> None:
        user = make_user()
        token = refresh_token(user)
        User.objects.filter(pk=user.pk).update(is_active=False)
        assert post(REFRESH, {"refresh": token}).status == 401

    def test_a_deleted_user(self) -> None:
        user = make_user()
        token = refresh_token(user)
        user.delete()
        assert post(REFRESH, {"refresh": token}).status == 401

    def test_a_token_that_was_never_given_out(self) -> None:
        user = make_user()
        token = refresh_token(user)
        OutstandingToken.objects.all().delete()
        assert post(REFRESH, {"refresh": token}).status == 401


@pytest.mark.databases
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", range(3))
def test_of_eight_parallel_uses_one_works(attempt: int) -> None:
    token = refresh_token(make_user(f"ann{attempt}"))
    statuses = in_parallel(8, lambda: post(REFRESH, {"refresh": token}).status)
    assert sorted(statuses) == [200] + [401] * 7
    # Seven others had the token too: the family is over, the winner's new token included.
    assert OutstandingToken.objects.filter(blacklistedtoken__isnull=True).count() == 0

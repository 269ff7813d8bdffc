"""The ends of access and refresh tokens: age, logout, reuse, rotation of the key. Wrong ones: test_identity."""

import threading
from datetime import timedelta
from typing import Any, cast

import jwt
import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import Settings
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.tokens import AccessToken

from chat.access import tokens
from chat.access.api_keys import issue_key
from chat.access.token_keys import key_id
from chat.access.tokens import FamilyToken, OwnAccessToken
from chat.access.websocket_authentication import credentials_of
from chat.errors import Unauthorized
from chat.schemas.accounts.token_bodies import TokenPair
from tests.api.calling import Api
from tests.api.people import bearer, forged, make_user

REFRESH, LOGOUT, URL = "/api/token/refresh/", "/api/token/logout/", "/api/conversations/"
OLD_KEY, NEW_KEY = "the old key of at least thirty-two bytes", "the new key of at least thirty-two bytes"
pytestmark = [pytest.mark.django_db, pytest.mark.databases]


@pytest.fixture
def ann() -> User:
    return make_user()


def outcome(pair: TokenPair) -> tuple[int, int]:
    """The statuses that access and refresh token of a pair get; the refresh token is used up with it."""
    return Api().get(URL, bearer(pair.access)).status, Api().post(REFRESH, {"refresh": pair.refresh}).status


class TestLogout:
    def test_it_ends_the_access_token_too(self, ann: User) -> None:
        pair, other = tokens.begin_family(ann), tokens.begin_family(ann)
        answer = Api().post(LOGOUT, {"refresh": pair.refresh})
        assert (answer.status, answer.body) == (204, {})
        assert outcome(pair) == (401, 401)
        assert outcome(other) == (200, 200)

    def test_everywhere(self, ann: User) -> None:
        pairs = [tokens.begin_family(ann) for _ in range(3)]
        bobs = tokens.begin_family(make_user("bob"))
        assert Api().post(LOGOUT, {"refresh": pairs[0].refresh, "everywhere": True}).status == 204
        assert [outcome(pair) for pair in pairs] == [(401, 401)] * 3
        assert outcome(bobs) == (200, 200)

    def test_a_used_token_logs_out_as_well(self, ann: User) -> None:
        first = tokens.begin_family(ann)
        second = tokens.refresh(first.refresh)
        assert Api().post(LOGOUT, {"refresh": first.refresh}).status == 204
        assert outcome(second) == (401, 401)

    @pytest.mark.parametrize("body", [{}, {"refresh": ""}, {"refresh": 7}, {"refresh": "x", "everywhere": "yes"}])
    def test_bad_bodies(self, body: dict[str, Any]) -> None:
        assert Api().post(LOGOUT, body).status == 400

    def test_no_other_token_logs_out(self, ann: User) -> None:
        pair = tokens.begin_family(ann)
        for wrong in ("x", pair.access, forged(ann, token_type="refresh", jti=None)):
            assert Api().post(LOGOUT, {"refresh": wrong}).status == 401
        assert outcome(pair) == (200, 200)


def test_reuse_ends_the_access_tokens_of_the_family_at_once(ann: User) -> None:
    first = tokens.begin_family(ann)
    second = tokens.refresh(first.refresh)
    assert Api().get(URL, bearer(first.access)).status == 200, "an access token lives on beside its successor"
    assert Api().post(REFRESH, {"refresh": first.refresh}).outcome == (401, "token_reused")
    assert [Api().get(URL, bearer(pair.access)).status for pair in (first, second)] == [401, 401]


def test_an_expired_refresh_token_is_told(ann: User) -> None:
    token = FamilyToken.for_user(cast(Any, ann))
    token.set_exp(lifetime=-timedelta(minutes=1))
    for path in (REFRESH, LOGOUT):
        assert Api().post(path, {"refresh": str(token)}).outcome == (401, "token_expired")


def test_tokens_are_not_to_be_stored(ann: User) -> None:
    answer = Api().post(REFRESH, {"refresh": tokens.begin_family(ann).refresh})
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_family_is_found_by_its_own_id_alone(ann: User) -> None:
    """Ids that begin alike are of other logins."""
    pairs = [tokens.begin_family(ann) for _ in range(2)]
    families = [FamilyToken(cast(Any, pair.refresh)).family for pair in pairs]
    OutstandingToken.objects.filter(jti__startswith=families[1]).update(jti=f"{families[0]}0.x")
    assert tokens._family(families[0], ann.pk).count() == 1


def signed(payload: dict[str, Any], settings: Settings) -> str:
    claims = payload | {"aud": "gemma-service", "iss": "gemma-service"}
    return jwt.encode(claims, settings.JWT_SIGNING_KEY, algorithm="HS256")


@pytest.mark.parametrize("family", [7, None, ["x"], "", "a\0", "\ud800", "x" * 5000, "a" * 33 + ".", "%"])
def test_an_access_token_of_no_family_of_ours(ann: User, family: object, settings: Settings) -> None:
    """Only a holder of the signing key can make one; over HTTP and a socket it is refused all the same."""
    payload = OwnAccessToken(cast(Any, tokens.begin_family(ann).access)).payload
    token = signed(payload | {"family": family}, settings)
    assert Api().get(URL, bearer(token)).outcome == (401, "invalid_token")
    scope = {"headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]}
    with pytest.raises(Unauthorized):
        credentials_of(scope)


@pytest.mark.parametrize(
    "change",
    [
        *({"jti": jti} for jti in (7, ".", "a\0b", "\0", "\udc00", "a" * 300, "%.%")),
        *({"user_id": user} for user in ([1], "1\0", "\ud800", 10**30, -1, None, "")),
        *({"exp": 10**30}, {"nbf": 10**12}),
    ],
)
def test_a_refresh_token_with_a_strange_claim(ann: User, change: dict[str, Any], settings: Settings) -> None:
    pair = tokens.begin_family(ann)
    token = signed(FamilyToken(cast(Any, pair.refresh)).payload | change, settings)
    assert Api().post(REFRESH, {"refresh": token}).outcome == (401, "invalid_token")
    assert Api().post(LOGOUT, {"refresh": token}).status in (204, 401)
    assert outcome(pair) == (200, 200)


def test_a_key_is_no_refresh_token(ann: User) -> None:
    key = issue_key(ann, name="x").text
    for path in (REFRESH, LOGOUT):
        assert Api().post(path, {"refresh": key}).outcome == (401, "invalid_token")


class TestRotationOfTheKey:
    def test_tokens_of_the_previous_key_remain_and_new_ones_have_the_new(self, ann: User, settings: Settings) -> None:
        settings.JWT_SIGNING_KEY = OLD_KEY
        old = tokens.begin_family(ann)
        settings.JWT_SIGNING_KEY, settings.JWT_SIGNING_KEY_PREVIOUS = NEW_KEY, OLD_KEY
        assert Api().get(URL, bearer(old.access)).status == 200
        new = tokens.refresh(old.refresh)
        assert jwt.get_unverified_header(new.access)["kid"] == key_id(NEW_KEY)
        jwt.decode(new.access, NEW_KEY, algorithms=["HS256"], audience="gemma-service")
        settings.JWT_SIGNING_KEY_PREVIOUS = None
        assert Api().get(URL, bearer(old.access)).status == 401
        assert Api().get(URL, bearer(new.access)).status == 200

    def test_an_unknown_kid_is_refused_although_the_key_is_right(self, ann: User, settings: Settings) -> None:
        claims = OwnAccessToken.for_user(cast(Any, ann)).payload | {"aud": "gemma-service", "iss": "gemma-service"}
        for kid, status in (("x", 401), (key_id(settings.JWT_SIGNING_KEY), 200), (None, 200)):
            headers = {} if kid is None else {"kid": kid}
            token = jwt.encode(claims, settings.JWT_SIGNING_KEY, algorithm="HS256", headers=headers)
            assert Api().get(URL, bearer(token)).status == status, kid
        stolen = jwt.encode(claims, NEW_KEY, algorithm="HS256", headers={"kid": key_id(settings.JWT_SIGNING_KEY)})
        assert Api().get(URL, bearer(stolen)).status == 401

    def test_a_token_of_an_earlier_version(self, ann: User) -> None:
        """It has neither a kid nor a family."""
        assert Api().get(URL, bearer(str(AccessToken.for_user(cast(Any, ann))))).status == 200


@pytest.mark.django_db(transaction=True)
def test_no_token_escapes_a_family_that_ends_while_it_is_refreshed() -> None:
    """A thief refreshes as fast as he can while the owner's reuse ends the family."""
    for attempt in range(5):
        first = tokens.begin_family(make_user(f"ann{attempt}"))
        latest = [tokens.refresh(first.refresh)]
        gate = threading.Barrier(2)

        def steal(latest: list[TokenPair] = latest, gate: threading.Barrier = gate) -> None:
            gate.wait()
            try:
                for _ in range(20):
                    latest.append(tokens.refresh(latest[-1].refresh))
            except Unauthorized:
                pass
            finally:
                connection.close()

        thief = threading.Thread(target=steal)
        thief.start()
        gate.wait()
        with pytest.raises(Unauthorized):
            tokens.refresh(first.refresh)
        thief.join()
        assert outcome(latest[-1]) == (401, 401)

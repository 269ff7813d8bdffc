"""The caller of a request: each kind of credentials, wrong ones, and none."""

from collections.abc import Callable
from urllib.parse import unquote

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from chat.models import Conversation
from inference.auth import service_token
from tests.api.calling import Answer, Api
from tests.api.people import PASSWORD, access_token, bearer, expired, forged, make_user, refresh_token

pytestmark = pytest.mark.django_db
URL = "/api/conversations/"
OUTSIDE = "203.0.113.7"


@pytest.fixture
def ann() -> User:
    return make_user()


def titles(api: Api, headers: dict[str, str] | None = None) -> list[str]:
    answer = api.get(URL, headers)
    assert answer.status == 200, answer.body
    return [row["title"] for row in answer.body["results"]]


def test_a_token_names_its_user(ann: User) -> None:
    Conversation.objects.create(owner=f"user:{ann.pk}", title="Ann's")
    Conversation.objects.create(owner="local", title="local")
    assert titles(Api(), bearer(access_token(ann))) == ["Ann's"]


def test_without_credentials_this_machine_is_one_local_identity() -> None:
    api = Api()
    Conversation.objects.create(owner="local", title="local")
    assert titles(api) == ["local"]


def test_a_session_names_its_user(ann: User) -> None:
    api = Api()
    Conversation.objects.create(owner=f"user:{ann.pk}", title="Ann's")
    api.log_in(ann)
    assert titles(api) == ["Ann's"]


@pytest.mark.parametrize("name", ["ann", "J%C3%BCrgen"])
def test_a_page_of_a_user_acts_for_nobody_else(name: str) -> None:
    """Its session may have ended, or another tab may have begun that of another user."""
    user, api = make_user(unquote(name)), Api()
    headers = {"X-Page-User": name}
    assert api.get(URL, headers).outcome == (401, "not_authenticated")
    api.log_in(user)
    assert titles(api, headers) == []
    api.log_in(make_user("bob"))
    assert api.get(URL, headers).outcome == (401, "not_authenticated")
    assert titles(api) == []


def test_the_scheme_may_be_written_in_any_case(ann: User) -> None:
    assert titles(Api(), {"Authorization": f"bearer  {access_token(ann)}"}) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda user: "",
        lambda user: "not.a.token",
        lambda user: "ünïcode",
        refresh_token,
        lambda user: forged(user, key="another key of at least thirty-two bytes"),
        lambda user: forged(user, algorithm="none"),
        lambda user: forged(user, algorithm="HS512"),
        lambda user: forged(user, aud="somebody-else"),
        lambda user: forged(user, aud=None),
        lambda user: forged(user, iss="somebody-else"),
        lambda user: forged(user, exp=None),
        lambda user: forged(user, exp="soon"),
        lambda user: forged(user, jti=None),
        lambda user: forged(user, token_type=None),
        lambda user: forged(user, token_type="sliding"),
        lambda user: forged(user, user_id="999999"),
        lambda user: forged(user, user_id="ann"),
        lambda user: forged(user, user_id=None),
        lambda user: forged(user, hash_password="stale"),
        lambda user: access_token(user) + "x",
        lambda user: access_token(user) + " " + access_token(user),
    ],
)
def test_a_wrong_token_is_refused_even_from_this_machine(ann: User, make: Callable[[User], str]) -> None:
    response = Api().get(URL, bearer(make(ann)))
    assert response.outcome == (401, "invalid_token")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_expired_token_is_refused_as_such(ann: User) -> None:
    assert Api().get(URL, bearer(expired(ann))).outcome == (401, "token_expired")


@pytest.mark.parametrize("header", ["Basic YW5uOng=", "Token abc", "", "Bearer"])
def test_another_scheme_is_refused(header: str) -> None:
    response = Api().get(URL, {"Authorization": header})
    assert response.outcome == (401, "invalid_token")


def test_a_disabled_user_is_out_at_once(ann: User) -> None:
    token = access_token(ann)
    User.objects.filter(pk=ann.pk).update(is_active=False)
    assert Api().get(URL, bearer(token)).status == 401


def test_a_changed_password_ends_all_tokens(ann: User) -> None:
    token = access_token(ann)
    ann.set_password("another long password")
    ann.save()
    assert Api().get(URL, bearer(token)).status == 401


def test_jwt_only_takes_tokens_of_users_and_services_alone(ann: User, settings: Settings) -> None:
    api = Api()
    settings.JWT_ONLY = True
    settings.JWT_SECRET = "an installation's key of more than 32 bytes"
    assert api.get(URL).status == 401
    api.log_in(ann)
    assert api.get(URL).status == 401
    service = {"X-Service-Token": service_token.mint("gateway") or ""}
    assert Api(OUTSIDE).get(URL, service).status == 200
    for refused in (service, {"X-Service-Token": service_token.mint("comfy") or ""}, {"X-Service-Token": "a.b"}):
        assert Api().get(URL, refused).outcome == (401, "service_token_refused")
    assert Api().get(URL, bearer(access_token(ann))).status == 200


def test_a_service_has_its_own_list_and_its_token_works_once(settings: Settings) -> None:
    settings.JWT_SECRET = "an installation's key of more than 32 bytes"
    Conversation.objects.create(owner="service:gateway", title="the gateway's")
    token = {"X-Service-Token": service_token.mint("gateway") or ""}
    assert titles(Api(OUTSIDE), token) == ["the gateway's"]
    response = Api().get(URL, token)
    assert response.outcome == (401, "service_token_refused")


def test_a_service_that_may_not_call_is_refused(settings: Settings) -> None:
    settings.JWT_SECRET = "an installation's key of more than 32 bytes"
    response = Api().get(URL, {"X-Service-Token": service_token.mint("gemma-service") or ""})
    assert response.outcome == (401, "service_token_refused")


def test_other_networks_need_credentials() -> None:
    response = Api(OUTSIDE).get(URL)
    assert response.outcome == (401, "not_authenticated")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [
        *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server"),
        *("X-Forwarded-Prefix", "X-Forwarded-Ssl", "X-Forwarded", "X-Original-Forwarded-For", "X-Original-Host"),
        *("Forwarded", "Via", "X-Real-IP", "X-Client-IP", "Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6"),
        *("True-Client-IP", "Fastly-Client-IP", "X-Cluster-Client-IP", "X-Azure-ClientIP", "X-Envoy-External-Address"),
        *("Fly-Client-IP", "DO-Connecting-IP", "X-Appengine-User-IP", "X-Remote-IP", "CDN-Loop", "CF-Ray"),
        *("X-Originating-IP", "X-Nf-Client-Connection-IP", "X-Varnish", "X-Scheme", "Front-End-Https", "X-Host"),
        *("X-Original-URL", "X-Rewrite-URL", "X-Request-Start", "X-Azure-SocketIP", "X-Amzn-Trace-Id"),
    ],
)
def test_a_proxy_does_not_lend_its_address(header: str) -> None:
    response = Api().get(URL, {header: "127.0.0.1"})
    assert response.outcome == (401, "not_authenticated")


@pytest.mark.parametrize(
    "header", ["X-Request-ID", "X-Api-Version", "X-Zip", "X-Ship", "Accept-Language", "Priority", "X-Client-Name"]
)
def test_other_headers_are_no_proxy(header: str) -> None:
    assert Api().get(URL, {header: "127.0.0.1"}).status == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.200.3.4", "::1", "::ffff:127.0.0.1"])
def test_this_machine_in_every_spelling(address: str) -> None:
    assert titles(Api(address)) == []


@pytest.mark.parametrize("address", ["", "10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "nonsense"])
def test_what_is_not_this_machine(address: str) -> None:
    assert Api(address).get(URL).status == 401


class TestForeignPages:
    """A page of another site, open in a browser on this machine, must not write here without credentials."""

    def create(self, **headers: str) -> Answer:
        return Api().post(URL, {"title": "x"}, headers)

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver.evil.example", "http://"])
    def test_anonymous(self, origin: str) -> None:
        response = self.create(Origin=origin)
        assert response.outcome == (403, "foreign_origin")
        assert Conversation.objects.count() == 0

    @pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "odd"])
    def test_a_page_that_shows_no_origin(self, site: str) -> None:
        assert self.create(**{"Sec-Fetch-Site": site}).outcome == (403, "foreign_origin")
        assert Conversation.objects.count() == 0

    @pytest.mark.parametrize("site", ["none", "same-origin"])
    def test_what_the_person_typed_and_our_own_page(self, site: str) -> None:
        assert self.create(**{"Sec-Fetch-Site": site}).status == 201

    def test_a_post_that_needs_no_preflight(self) -> None:
        response = Api().call("POST", URL, {"title": "x"}, content_type="text/plain", headers={"Origin": "null"})
        assert response.status == 403
        response = Api().call("POST", URL, {"title": "x"}, content_type="text/plain")
        assert response.outcome == (415, "unsupported_media_type")

    def test_our_own_page_and_trusted_ones(self, settings: Settings) -> None:
        settings.CSRF_TRUSTED_ORIGINS = ["https://chat.example", "https://*.apps.example"]
        for origin in ("http://testserver", "https://chat.example", "https://a.apps.example"):
            assert self.create(Origin=origin).status == 201, origin
        for origin in ("http://chat.example", "https://apps.example.evil.example", "https://xapps.example"):
            assert self.create(Origin=origin).status == 403, origin

    def test_a_token_is_proof_enough(self, ann: User) -> None:
        headers = bearer(access_token(ann)) | {"Origin": "https://evil.example"}
        assert self.create(**headers).status == 201

    def test_another_host_is_not_served(self) -> None:
        # A page that rebinds its own name to 127.0.0.1 is of "our" origin; its Host header gives it away.
        response = Api().get(URL, {"Host": "evil.example", "Origin": "http://evil.example"})
        assert response.outcome == (400, "invalid_host")


class TestSessionsNeedTheCsrfToken:
    def test_without_it(self, ann: User) -> None:
        api = Api(enforce_csrf_checks=True)
        api.log_in(ann)
        response = api.post(URL, {})
        assert response.outcome == (403, "csrf_failed")

    def test_with_it(self, ann: User) -> None:
        api = Api(enforce_csrf_checks=True)
        api.log_in(ann)
        api.client.cookies["csrftoken"] = "a" * 32
        response = api.post(URL, {}, {"X-CSRFToken": "a" * 32})
        assert response.status == 201
        assert Conversation.objects.get().owner == f"user:{ann.pk}"

    def test_reading_needs_none(self, ann: User) -> None:
        api = Api(enforce_csrf_checks=True)
        api.log_in(ann)
        assert titles(api) == []


@pytest.mark.django_db(transaction=True)
class TestAsynchronousViews:
    """They look the caller up in a thread with a database connection of its own."""

    def test_a_session_without_csrf_token(self, ann: User) -> None:
        api = Api(enforce_csrf_checks=True)
        api.log_in(ann)
        assert api.post("/chat", {"messages": []}).outcome == (403, "csrf_failed")

    def test_a_session_does_not_count_with_jwt_only(self, ann: User, settings: Settings) -> None:
        settings.JWT_ONLY = True
        api = Api()
        assert api.client.login(username="ann", password=PASSWORD)
        assert api.post("/chat", {}).outcome == (401, "not_authenticated")
        assert api.post("/chat", {"messages": []}, bearer(access_token(ann))).outcome == (400, "invalid_request")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/chat"),
            ("POST", "/chat/stream"),
            ("GET", "/chat/stream/6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10"),
            ("POST", "/generate"),
            ("POST", "/api/generations/6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10/cancel"),
            ("GET", URL),
        ],
    )
    def test_no_route_of_the_chat_is_open_to_other_networks(self, method: str, path: str) -> None:
        assert Api(OUTSIDE).call(method, path, {}).outcome == (401, "not_authenticated")
        assert Api().call(method, path, {}, headers=bearer("x")).outcome == (401, "invalid_token")
        if method == "POST":
            assert Api().call(method, path, {}, headers={"Origin": "https://evil.example"}).outcome[0] == 403

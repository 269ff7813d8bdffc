"""Browser front ends of other origins: those that are listed call the API with credentials, all others not at all."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import websockets
from asgiref.sync import SyncToAsync
from django.test import AsyncClient
from pytest_django import Settings
from websockets import Origin, Subprotocol
from websockets.exceptions import InvalidStatus

from tests.api.calling import Api
from tests.api.live import LiveUser, answer_over, make_users, read_stream, say, text_of
from tests.live_stack import LiveStack, running_stack

LISTED = ["https://chat.example", "http://localhost:3000", "https://xn--mller-kva.example:8443"]
FOREIGN = [
    "https://evil.example",
    "http://chat.example",
    "https://chat.example:444",
    "https://sub.chat.example",
    "https://chat.example.evil.example",
    "null",
    "https://[",
    "chat.example",
]
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture
def listed(settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = LISTED


@pytest.mark.django_db
@pytest.mark.usefixtures("listed")
class TestHttp:
    @pytest.mark.parametrize("origin", LISTED)
    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/api/conversations/"), ("POST", "/chat"), ("GET", "/memory/list"), ("POST", "/gpu/acquire")],
    )
    def test_a_listed_page_without_credentials_is_nobody(self, origin: str, method: str, path: str) -> None:
        answer = Api().call(method, path, headers={"Origin": origin})
        assert answer.outcome == (401, "not_authenticated")
        assert answer.headers[ALLOW] == origin, "the page can read why"

    @pytest.mark.parametrize("origin", LISTED)
    def test_also_when_it_is_trusted_with_cookies(self, origin: str, settings: Settings) -> None:
        settings.CSRF_TRUSTED_ORIGINS = LISTED
        assert Api().post("/memory/list", {}, headers={"Origin": origin}).status == 405
        assert Api().post("/chat", {}, headers={"Origin": origin}).outcome == (401, "not_authenticated")

    @pytest.mark.parametrize("origin", FOREIGN)
    def test_a_page_that_is_not_listed(self, origin: str) -> None:
        answer = Api().post("/chat", say("x"), headers={"Origin": origin})
        assert answer.outcome == (403, "foreign_origin")
        assert ALLOW not in answer.headers

    def test_our_own_page_is_the_local_user(self, settings: Settings) -> None:
        settings.CORS_ALLOWED_ORIGINS = [*LISTED, "http://testserver"]
        assert Api().get("/api/conversations/", headers={"Origin": "http://testserver"}).status == 200

    @pytest.mark.parametrize("origin", LISTED)
    @pytest.mark.parametrize("path", ["/chat", "/chat/stream", "/api/conversations/", "/api/token/", "/v1/models"])
    def test_a_preflight(self, origin: str, path: str) -> None:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        }
        answer = Api("203.0.113.7").call("OPTIONS", path, headers=headers)
        assert (answer.status, answer.headers[ALLOW]) == (200, origin)
        assert {"authorization", "content-type", "idempotency-key", "last-event-id"} <= set(
            answer.headers["Access-Control-Allow-Headers"].split(", ")
        )
        assert {"GET", "POST", "PATCH", "DELETE"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
        assert "Access-Control-Allow-Credentials" not in answer.headers

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [("/chat", b"{", 401), ("/nothing", b"", 404), ("/chat", b"x" * 2_000_000, 413), ("/health", b"", 405)],
    )
    def test_errors_can_be_read(self, path: str, body: bytes, status: int) -> None:
        answer = Api().call("POST", path, body, headers={"Origin": LISTED[0]})
        assert (answer.status, answer.headers[ALLOW]) == (status, LISTED[0])
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]

    def test_the_admin_is_not_opened(self) -> None:
        response = Api().client.get("/admin/login/", headers={"Origin": LISTED[0]})
        assert response.status_code == 200
        assert ALLOW not in response.headers


@pytest.mark.django_db
@pytest.mark.parametrize("origin", [*LISTED, *FOREIGN])
def test_without_the_setting_there_are_no_headers(origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = Api().call("OPTIONS", "/chat", headers=headers)
    assert (answer.status, answer.headers["Allow"]) == (204, "POST, OPTIONS")
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("listed")
async def test_it_takes_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    begin = SyncToAsync.__init__

    def note(self: SyncToAsync[Any, Any], func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        names.append(getattr(func, "__qualname__", repr(func)))
        begin(self, func, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__init__", note)
    response = await AsyncClient().get("/chat", headers={"Origin": LISTED[0]})
    assert (response.status_code, response.headers[ALLOW]) == (405, LISTED[0])
    preflight = await AsyncClient().options(
        "/chat", headers={"Origin": LISTED[0], "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 200
    assert not [name for name in names if re.search("process_|[Mm]iddleware|get_response|Cors|preflight", name)]
    await AsyncClient().get("/admin/login/", headers={"Origin": LISTED[0]})
    assert any("process_" in name for name in names), "pages take threads, which the list shows"


class TestLive:
    @pytest.fixture(scope="class")
    @classmethod
    def stack(cls) -> Iterator[LiveStack]:
        environment = {"CORS_ALLOWED_ORIGINS": ",".join(LISTED), "CSRF_TRUSTED_ORIGINS": LISTED[1]}
        with running_stack(**environment, GEMMA_CONTEXT_SIZE="8192") as stack:
            yield stack

    @pytest.fixture(scope="class")
    @classmethod
    def ada(cls, stack: LiveStack) -> LiveUser:
        return make_users(stack, "ada-cors")[0]

    @pytest.mark.parametrize("origin", LISTED)
    def test_a_page_logs_in_and_streams(self, origin: str, stack: LiveStack, ada: LiveUser) -> None:
        with httpx.Client(base_url=stack.url, headers=ada.headers | {"Origin": origin}, timeout=30) as client:
            with client.stream("POST", "/chat/stream", json=say("hello")) as response:
                assert response.headers[ALLOW] == origin
                assert "Origin" in response.headers["Vary"].title()
                response.read()
            assert text_of(read_stream(client, "/chat/stream", say("hello"))) == "hello"
            assert client.post("/chat", json={}).headers[ALLOW] == origin

    @pytest.mark.parametrize("origin", LISTED)
    def test_a_socket_needs_the_token(self, origin: str, stack: LiveStack, ada: LiveUser) -> None:
        url = stack.url.replace("http", "ws") + "/ws/chat"

        async def connect() -> str:
            with pytest.raises(InvalidStatus) as caught:
                async with websockets.connect(url, origin=Origin(origin)):
                    pass
            assert caught.value.response.status_code == 403
            protocols = [Subprotocol("gemma.v1"), Subprotocol(ada.access)]
            async with websockets.connect(url, origin=Origin(origin), subprotocols=protocols) as socket:
                return text_of(await answer_over(socket, {"type": "chat"} | say("hi", store=False)))

        assert asyncio.run(connect()) == "hi"

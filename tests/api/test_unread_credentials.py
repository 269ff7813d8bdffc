"""Credentials in a place where none are read: refused with the right place, never ignored."""

import json
from typing import Any

import pytest
import websockets
from websockets.exceptions import InvalidStatus

from tests.api.calling import Api
from tests.api.live import LiveUser, answer_over, make_users, say, text_of
from tests.live_stack import LiveStack

QUERIES = [
    "token={}",
    "access_token={}",
    "key={}",
    "api_key={}",
    "jwt={}",
    "authorization=Bearer%20{}",
    "Token={}",
    "ACCESS-TOKEN={}",
    "apikey={}",
    "x-service-token={}",
    "search=a&auth={}",
    "auth_token",
    "%74oken={}",
    "password={}",
]
HARMLESS = ["search=token", "q=a", "tokens=3", "monkey=1", ""]


@pytest.fixture(scope="module")
def ada(fake_stack: LiveStack) -> LiveUser:
    return make_users(fake_stack, "ada-query")[0]


@pytest.fixture
def url(fake_stack: LiveStack) -> str:
    return fake_stack.url.replace("http", "ws") + "/ws/chat"


async def refusal(url: str, **how: Any) -> str:  # noqa: ANN401
    """The reason of a refused connection."""
    with pytest.raises(InvalidStatus) as caught:
        async with websockets.connect(url, **how):
            pass
    response = caught.value.response
    assert response.status_code == 403
    assert response.headers["Content-Type"] == "application/json"
    reason: str = json.loads(response.body or b"")["error"]["message"]
    return reason


class TestWebSocket:
    @pytest.mark.parametrize("query", QUERIES)
    async def test_a_query(self, query: str, url: str, ada: LiveUser) -> None:
        assert "Authorization: Bearer" in await refusal(f"{url}?{query.format(ada.access)}")

    async def test_a_query_beside_a_header(self, url: str, ada: LiveUser) -> None:
        """Two credentials are refused: the intended one is not guessed."""
        reason = await refusal(f"{url}?token=other", additional_headers=ada.headers)
        assert "'token'" in reason

    @pytest.mark.parametrize(
        "offered", [["{}"], ["bearer", "{}"], ["graphql-ws"], ["gemma.v2", "{}"], ["access_token", "{}"]]
    )
    async def test_subprotocols_that_are_not_known(self, offered: list[str], url: str, ada: LiveUser) -> None:
        reason = await refusal(url, subprotocols=[name.format(ada.access) for name in offered])
        assert '"gemma.v1"' in reason

    @pytest.mark.parametrize("query", HARMLESS)
    async def test_another_query(self, query: str, url: str) -> None:
        async with websockets.connect(f"{url}?{query}") as socket:
            lines = await answer_over(socket, {"type": "chat"} | say("hi", store=False))
        assert text_of(lines) == "hi"

    async def test_a_path_without_a_socket_says_so(self, url: str) -> None:
        assert await refusal(f"{url}s") == "no WebSocket is served at this path"


@pytest.mark.django_db
class TestHttp:
    @pytest.mark.parametrize("query", QUERIES)
    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/api/conversations/"), ("POST", "/chat"), ("GET", "/memory/list"), ("GET", "/gpu/state")],
    )
    def test_a_query(self, method: str, path: str, query: str) -> None:
        answer = Api().call(method, f"{path}?{query.format('e.y.j')}")
        assert answer.outcome == (401, "credentials_in_query")
        assert "WWW-Authenticate" in answer.headers
        assert "e.y.j" not in answer.body["error"]["message"]

    @pytest.mark.parametrize("query", HARMLESS)
    def test_another_query(self, query: str) -> None:
        assert Api().get(f"/api/conversations/?{query}").status == 200

    def test_a_public_page_needs_none(self) -> None:
        assert Api().get("/?token=x").status == 200

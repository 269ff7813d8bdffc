"""The id of a request: taken from its header or made, in the response, and on every line of web process and worker."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest
import websockets
from django.test import AsyncClient

from tests.api.calling import Api
from tests.api.live import answer_over, say
from tests.live_stack import LiveStack, running_stack, wait_until

SAFE = re.compile(r"[A-Za-z0-9._-]{1,64}")
HOSTILE = [
    "a\nERROR forged: line",
    "a\r\nX-Evil: 1",
    "\x1b[2J",
    "x" * 10_000,
    "x" * 65,
    "schlüssel",
    "日本",
    "a b",
    "a\0b",
    "a\u2028b",
    "request=other",
    "",
]


@pytest.mark.django_db
class TestHeader:
    @pytest.mark.parametrize("path", ["/health", "/nothing", "/admin/login/", "/static/none.css"])
    def test_a_safe_id_comes_back(self, path: str) -> None:
        assert Api().client.get(path, headers={"X-Request-ID": "A.b-c_9"}).headers["X-Request-ID"] == "A.b-c_9"

    @pytest.mark.parametrize("value", HOSTILE)
    def test_a_hostile_value_is_replaced(self, value: str) -> None:
        answer = Api().get("/nothing", headers={"X-Request-ID": value})
        assert answer.status == 404
        assert SAFE.fullmatch(answer.headers["X-Request-ID"])
        assert answer.headers["X-Request-ID"] != value

    def test_two_requests_have_two_ids(self) -> None:
        assert Api().get("/nothing").headers["X-Request-ID"] != Api().get("/nothing").headers["X-Request-ID"]

    def test_a_refusal_before_the_views_has_one(self) -> None:
        answer = Api().call("POST", "/chat", headers={"Content-Length": "x", "X-Request-ID": "abc"})
        assert answer.status == 400
        assert answer.headers["X-Request-ID"] == "abc"


@pytest.mark.django_db(transaction=True)
async def test_the_asynchronous_chain_sets_it_too() -> None:
    response = await AsyncClient().get("/nothing", headers={"X-Request-ID": "abc"})
    assert response.headers["X-Request-ID"] == "abc"


@pytest.fixture(scope="module")
def debug_stack() -> Iterator[LiveStack]:
    with running_stack(LOG_LEVEL="debug") as stack:
        yield stack


def lines_with(stack: LiveStack, text: str) -> list[str]:
    return [line for line in stack.output.splitlines() if text in line]


def assert_web_and_worker_logged(stack: LiveStack, request_id: str, generation_id: str) -> None:
    """Lines of both processes name both ids, and no line of the generation lacks the request."""
    wait_until(
        lambda: any("inference.worker" in line for line in lines_with(stack, generation_id)),
        timeout_secs=10,
        what="the worker's line",
    )
    about = [line for line in lines_with(stack, generation_id) if "generation=" in line]
    assert all(f"request={request_id}" in line for line in about), about
    assert any("inference.queue.generations: generation stored" in line for line in about)
    assert any("inference.worker" in line and "claimed" in line for line in about)


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
def test_one_chat_leaves_lines_of_web_process_and_worker(debug_stack: LiveStack, path: str) -> None:
    request_id = f"over-http{path.replace('/', '-')}"
    with httpx.Client(base_url=debug_stack.url, timeout=30) as client:
        response = client.post(path, json=say("hi", store=False), headers={"X-Request-ID": request_id})
    assert response.headers["X-Request-ID"] == request_id
    found = re.search(r'"generation_id": ?"([0-9a-f-]{36})"', response.text)
    assert found, response.text
    assert_web_and_worker_logged(debug_stack, request_id, found[1])


async def test_each_frame_of_a_socket_has_an_id(debug_stack: LiveStack) -> None:
    url = debug_stack.url.replace("http", "ws") + "/ws/chat"
    request_ids = set()
    async with websockets.connect(url) as socket:
        for _ in range(2):
            lines = await answer_over(socket, {"type": "chat"} | say("hi", store=False))
            generation_id = str(lines[-1]["generation_id"])
            found = re.search(r"request=(\S+)", lines_with(debug_stack, f"stored generation={generation_id}")[0])
            assert found
            assert_web_and_worker_logged(debug_stack, found[1], generation_id)
            request_ids.add(found[1])
    assert len(request_ids) == 2


@pytest.mark.parametrize(
    "value", [b"a\x1b[31mred", b"x" * 10_000, "schlüssel".encode(), b"a\tERROR forged", b"\xff\xfe", b"a b"]
)
def test_a_hostile_header_is_on_no_line(debug_stack: LiveStack, value: bytes) -> None:
    before = len(debug_stack.output)
    with httpx.Client(base_url=debug_stack.url, timeout=30) as client:
        response = client.post("/chat", json=say("hi", store=False), headers=[(b"X-Request-ID", value)])
    assert SAFE.fullmatch(response.headers["X-Request-ID"])
    generation_id = response.json()["generation_id"]
    assert_web_and_worker_logged(debug_stack, response.headers["X-Request-ID"], generation_id)
    written = debug_stack.output[before:]
    assert "\x1b" not in written
    assert value[:20].decode("latin-1") not in written
    assert json.dumps(value.decode("latin-1"))[1:20] not in written

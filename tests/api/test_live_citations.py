"""An answer with invented labels, over every interface: the same text everywhere, and `cited` as in the text."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
import websockets

from tests.api.live import Line, answer_over, read_stream, text_of
from tests.live_stack import LiveStack

SAID = "Tom [1, 7] and Ana [8] and `rows[9]` and list[7] said [2][12]."
SHOWN = "Tom [1] and Ana and `rows[9]` and list[7] said [2]."
BODY = {
    "messages": [{"role": "user", "content": f"[[say: {SAID}]]"}],
    "context": ["first", {"text": "second", "speaker": "Ana"}, "third"],
}


@pytest.fixture
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize("use_rag", [False, True])
def test_every_interface_tells_the_same_text(client: httpx.Client, fake_stack: LiveStack, use_rag: bool) -> None:
    body = BODY | {"use_rag": use_rag}

    async def over_socket() -> list[Line]:
        async with websockets.connect(fake_stack.url.replace("http", "ws") + "/ws/chat") as socket:
            return await answer_over(socket, {"type": "chat"} | body)

    rest = client.post("/chat", json=body).json()
    streamed, socketed = read_stream(client, "/chat/stream", body), asyncio.run(over_socket())
    assert text_of(streamed) == text_of(socketed) == rest["response"] == SHOWN
    for outcome in (rest, streamed[-1], socketed[-1]):
        assert [(source["label"], source["cited"]) for source in outcome["sources"]] == [
            ("1", True),
            ("2", True),
            ("3", False),
        ]
    message = client.get(f"/api/conversations/{streamed[0]['conversation_id']}/messages/").json()["results"][-1]
    assert (message["content"], message["sources"]) == (SHOWN, streamed[-1]["sources"])


def test_a_stream_resumed_within_a_bracket_goes_on_with_the_same_text(client: httpx.Client) -> None:
    streamed = read_stream(client, "/chat/stream", BODY)
    answer_lines = [line for line in streamed if "status" not in line]
    for after in range(0, len(SAID), 7):
        resumed = read_stream(client, f"/chat/stream/{streamed[0]['generation_id']}?after={after}")
        assert text_of(resumed) == "".join(line["token"] for line in answer_lines if line["id"] > after or line["done"])


def test_without_memories_a_bracket_is_a_bracket(client: httpx.Client) -> None:
    plain = {"messages": BODY["messages"]}
    assert client.post("/chat", json=plain).json()["response"] == SAID
    nothing_found = client.post("/chat", json=plain | {"use_rag": True, "speakers": ["Nobody"]}).json()
    assert (nothing_found["response"], nothing_found["rag_context_used"]) == (SAID, 0)

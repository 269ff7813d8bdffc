"""Two users on every route: the objects of one do not exist for the other, and remain unchanged."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
import websockets
from django.urls import URLPattern, URLResolver

from chat.api.urls import urlpatterns
from tests.api.live import LiveUser, answer_over, count, data_lines, make_users, say
from tests.live_stack import LiveStack, wait_until


@dataclass(frozen=True)
class Owned:
    """Ann's things: a conversation, its ended answer, and an answer that is being made."""

    conversation: str
    generation: str
    running: str
    response: str


@pytest.fixture(scope="module")
def users(fake_stack: LiveStack) -> list[LiveUser]:
    return make_users(fake_stack, "ann", "bob")


@pytest.fixture(scope="module")
def ann(fake_stack: LiveStack, users: list[LiveUser]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, headers=users[0].headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def bob(fake_stack: LiveStack, users: list[LiveUser]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, headers=users[1].headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def anns(ann: httpx.Client) -> Iterator[Owned]:
    answer = ann.post("/chat", json=say("a secret of ann")).json()
    with ann.stream("POST", "/chat/stream", json=count(2000, delay_ms=200)) as stream:
        lines = data_lines(stream)
        running = next(lines)["generation_id"]
        body = {"input": "[[say: a secret]]", "conversation": answer["conversation_id"]}
        response = ann.post("/v1/responses", json=body).json()["id"]
        yield Owned(answer["conversation_id"], answer["generation_id"], running, response)


def seen_by_ann(ann: httpx.Client, anns: Owned) -> tuple[Any, ...]:
    """All that must not change through anything that others do."""
    base = f"/api/conversations/{anns.conversation}/"
    messages = ann.get(base + "messages/").json()["results"]
    return ann.get("/api/conversations/").json()["count"], ann.get(base).json(), messages


TEXT = {"role": "user", "content": "x"}
Call = Callable[[httpx.Client, Owned], httpx.Response]
BASE = "/api/conversations/{conversation}/"

# Every route with an id in its path or body -> a request for it by another user.
CALLS: dict[str, Call] = {
    "read": lambda client, o: client.get(f"/api/conversations/{o.conversation}/"),
    "rename": lambda client, o: client.patch(f"/api/conversations/{o.conversation}/", json={"title": "mine now"}),
    "delete": lambda client, o: client.delete(f"/api/conversations/{o.conversation}/"),
    "messages": lambda client, o: client.get(f"/api/conversations/{o.conversation}/messages/"),
    "export": lambda client, o: client.get(f"/api/conversations/{o.conversation}/export/"),
    "markdown": lambda client, o: client.get(f"/api/conversations/{o.conversation}/export/?format=markdown"),
    "versions": lambda client, o: client.get(f"/api/conversations/{o.conversation}/versions/"),
    "summaries": lambda client, o: client.get(f"/api/conversations/{o.conversation}/summaries/"),
    "continue": lambda client, o: client.post("/chat", json={"conversation_id": o.conversation, "message": "x"}),
    "stream": lambda client, o: client.post("/chat/stream", json={"conversation_id": o.conversation, "message": "x"}),
    "rag": lambda client, o: client.post("/chat/rag", json={"conversation_id": o.conversation, "query": "x"}),
    "openai": lambda client, o: client.post("/v1/chat/completions", json=say("x", conversation_id=o.conversation)),
    "openai stream": lambda client, o: client.post(
        "/v1/chat/completions", json=say("x", conversation_id=o.conversation, stream=True)
    ),
    "openai unstored": lambda client, o: client.post(
        "/v1/chat/completions", json=say("x", conversation_id=o.conversation, store=False)
    ),
    "response": lambda client, o: client.get(f"/v1/responses/{o.response}"),
    "response events": lambda client, o: client.get(f"/v1/responses/{o.response}?stream=true&starting_after=1"),
    "response items": lambda client, o: client.get(f"/v1/responses/{o.response}/input_items"),
    "response cancel": lambda client, o: client.post(f"/v1/responses/{o.response}/cancel"),
    "response delete": lambda client, o: client.delete(f"/v1/responses/{o.response}"),
    "response continue": lambda client, o: client.post(
        "/v1/responses", json={"input": "x", "previous_response_id": o.response}
    ),
    "response reference": lambda client, o: client.post(
        "/v1/responses", json={"input": [{"type": "item_reference", "id": o.response.replace("resp", "msg")}, TEXT]}
    ),
    "response conversation": lambda client, o: client.post(
        "/v1/responses", json={"input": "x", "conversation": o.conversation}
    ),
    "anthropic": lambda client, o: client.post(
        "/v1/messages", json=say("x", conversation_id=o.conversation, model="", max_tokens=5)
    ),
    "resume": lambda client, o: client.get(f"/chat/stream/{o.generation}"),
    "resume running": lambda client, o: client.get(f"/chat/stream/{o.running}", headers={"Last-Event-ID": "1"}),
    "cancel": lambda client, o: client.post(f"/api/generations/{o.generation}/cancel"),
    "cancel running": lambda client, o: client.post(f"/api/generations/{o.running}/cancel"),
}


@pytest.mark.parametrize("name", CALLS)
def test_for_bob_it_does_not_exist(name: str, ann: httpx.Client, bob: httpx.Client, anns: Owned) -> None:
    before = seen_by_ann(ann, anns)
    response = CALLS[name](bob, anns)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert "secret" not in response.text
    assert seen_by_ann(ann, anns) == before


@pytest.mark.parametrize("name", CALLS)
def test_nor_for_the_local_identity(name: str, fake_stack: LiveStack, anns: Owned) -> None:
    with httpx.Client(base_url=fake_stack.url, timeout=30) as nobody:
        assert CALLS[name](nobody, anns).status_code == 404


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_token_gets_nowhere(name: str, fake_stack: LiveStack, anns: Owned) -> None:
    with httpx.Client(base_url=fake_stack.url, headers={"Authorization": "Bearer x.y.z"}) as nobody:
        assert CALLS[name](nobody, anns).status_code == 401


@pytest.mark.parametrize(
    "name", ["read", "messages", "export", "markdown", "summaries", "versions", "resume", "response", "response items"]
)
def test_for_ann_it_does(name: str, ann: httpx.Client, anns: Owned) -> None:
    assert CALLS[name](ann, anns).status_code == 200


def test_the_answer_is_the_same_as_for_what_never_was(bob: httpx.Client, anns: Owned) -> None:
    nothing = "6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10"
    never = Owned(nothing, nothing, nothing, f"resp_{UUID(nothing).hex}")
    for name, call in CALLS.items():
        refused, unknown = (call(bob, owned).json() | {"request_id": ""} for owned in (anns, never))
        # Anthropic's errors name their request, and some the id that was sent.
        assert without_ids(refused) == without_ids(unknown), name


def without_ids(answer: object) -> str:
    return re.sub(r"msg_[0-9a-f]{32}", "msg_", json.dumps(answer, sort_keys=True))


def test_lists_and_searches_show_ones_own(ann: httpx.Client, bob: httpx.Client, anns: Owned) -> None:
    assert bob.get("/api/conversations/").json()["results"] == []
    assert bob.get("/api/conversations/?search=secret").json()["count"] == 0
    assert ann.get("/api/conversations/?search=SECRET of").json()["count"] == 1


async def test_over_the_socket(fake_stack: LiveStack, users: list[LiveUser], anns: Owned) -> None:
    url = fake_stack.url.replace("http", "ws") + "/ws/chat"
    async with websockets.connect(url, additional_headers=users[1].headers) as socket:
        for generation_id in (anns.generation, anns.running):
            for kind in ("resume", "cancel"):
                (line,) = await answer_over(socket, {"type": kind, "generation_id": generation_id})
                assert (line["type"], line["error"]["code"]) == ("error", "not_found")
        frame = {"type": "chat", "conversation_id": anns.conversation, "message": "x"}
        (line,) = await answer_over(socket, frame)
        assert line["error"]["code"] == "not_found"
        assert "secret" not in json.dumps(line)


def test_bobs_history_does_not_continue_anns_conversation(bob: httpx.Client, anns: Owned) -> None:
    """The same messages as Ann's belong to their sender."""
    history = [*_messages(say("a secret of ann")), {"role": "assistant", "content": "a secret of ann"}]
    answer = bob.post("/chat", json={"messages": [*history, {"role": "user", "content": "[[say: mine]]"}]}).json()
    assert answer["conversation_id"] != anns.conversation
    bob.delete(f"/api/conversations/{answer['conversation_id']}/")


def _messages(body: dict[str, object]) -> list[object]:
    messages = body["messages"]
    assert isinstance(messages, list)
    return messages


def n_cached(client: httpx.Client, text: str, *, store: bool) -> int:
    """Ask, and return how many tokens of the prompt were computed before."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, "store": store}
    count: int = client.post("/chat", json=body).json()["usage"]["cached_tokens"]
    return count


@pytest.mark.parametrize("is_stored", [True, False])
def test_the_cache_tells_nothing_of_anothers_words(is_stored: bool, ann: httpx.Client, bob: httpx.Client) -> None:
    secret = f"{is_stored}: the code of the safe in the cellar is 4711, and nobody else knows it"
    for _ in range(2):
        n_cached(ann, secret, store=is_stored)
    n_own = n_cached(ann, f"{secret}!", store=False)
    n_shared = max(n_cached(bob, f"{number}~ something else", store=False) for number in range(2))
    assert n_cached(bob, f"{secret}!", store=False) <= n_shared
    assert n_own > n_shared + len(secret) / 2, "her own words are computed once"
    with httpx.Client(base_url=bob.base_url, timeout=30) as nobody:
        assert n_cached(nobody, f"{secret}!", store=False) <= n_shared


def test_one_key_of_two_users_is_two_keys(ann: httpx.Client, bob: httpx.Client) -> None:
    key = {"Idempotency-Key": "shared"}
    first = ann.post("/chat", json=say("x", store=False), headers=key).json()["generation_id"]
    second = bob.post("/chat", json=say("y", store=False), headers=key).json()["generation_id"]
    assert first != second


def test_fields_that_are_not_the_clients(ann: httpx.Client, bob: httpx.Client, users: list[LiveUser]) -> None:
    mine = {"title": "x", "owner": "user:1", "id": "6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10", "summary": "forged"}
    made = bob.post("/api/conversations/", json=mine).json()
    assert (made["title"], made["summary"]) == ("x", "")
    assert made["id"] != mine["id"]
    changed = bob.patch(f"/api/conversations/{made['id']}/", json=mine | {"created_at": "2020-01-01"}).json()
    assert (changed["id"], changed["summary"], changed["created_at"]) == (made["id"], "", made["created_at"])
    assert bob.delete(f"/api/conversations/{made['id']}/").status_code == 204
    assert bob.get(f"/api/conversations/{made['id']}/").status_code == 404


def test_the_running_answer_was_never_touched(ann: httpx.Client, anns: Owned) -> None:
    with ann.stream("GET", f"/chat/stream/{anns.running}") as stream:
        ids = []
        for line in data_lines(stream):
            ids.append(line["id"])
            assert not line["done"]
            if line["id"] > max(5, ids[0]):
                break
    assert ann.post(f"/api/generations/{anns.running}/cancel").status_code == 200
    idle = lambda: ann.get("/health").json()["active"] == 0  # noqa: E731
    wait_until(idle, timeout_secs=5, what="it is stopped by its owner")


def test_no_route_is_left_out() -> None:
    """A new route has to be added above, too, unless its objects have no owner."""
    names = {pattern.name for pattern in _patterns(urlpatterns)}
    covered = {"openai-chat", "chat", "chat-stream", "chat-resume", "generation-cancel"}
    covered |= {"anthropic-messages", "chat-rag"}
    covered |= {"openai-responses", "openai-response", "openai-response-cancel", "openai-response-items"}
    covered |= {
        f"conversation-{action}" for action in ("list", "detail", "messages", "export", "summaries", "versions")
    }
    # tests/api/test_memory_owners.py has these.
    covered |= {f"memory-{action}" for action in ("search-semantic", "search-old", "index", "add", "list", "search")}
    covered |= {"memory-stats", "memory-delete", "transcript"}
    covered |= {f"transcripts-{what}" for what in ("recent", "speakers", "count")}
    covered |= {"api-key-list", "api-key-detail", "usage"}  # tests/api/test_api_keys.py, test_caller_limits.py
    covered |= {"account", "account-export"}  # tests/api/test_account.py
    # tests/api/test_stack_routes.py has these.
    covered |= {"transcripts-query", "transcripts-time-range", "memory-emotions", "analyze"}
    covered |= {f"emotions-{what}" for what in ("stats", "analytics", "moments")}
    nobodys = {
        "root",
        "health",
        "health-live",
        "health-ready",
        "metrics",
        "schema",
        "docs",
        "token",
        "token-refresh",
        "token-logout",
        "generate",
        "openai-completions",
        "openai-embeddings",
        "openai-models",
        "openai-model",
        "tokenize",
        "detokenize",
        "apply-template",
        "anthropic-count-tokens",
        "service-stats",
        "model-list",
        "model-settings",
        "model-settings-update",
        "score-chunk",
    }  # nothing stored is named in them
    # The GPU is the machine's; its access rules: tests/api/test_gpu_coordinator.py, test_card_commands.py.
    machines = {f"gpu-{action}" for action in ("acquire", "renew", "release", "state")}
    machines |= {f"gpu-old-{action}" for action in ("request", "release", "status")}
    machines |= {f"card-{action}" for action in ("warmup", "move-to-cpu", "release-session")}
    assert names == covered | nobodys | machines


def _patterns(routes: list[URLPattern | URLResolver]) -> Iterator[URLPattern]:
    for route in routes:
        if isinstance(route, URLResolver):
            yield from _patterns(route.url_patterns)
        else:
            yield route

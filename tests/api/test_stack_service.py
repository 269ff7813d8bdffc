"""Routes of the stack's chat service on a running one: its chat with memories, its statistics and settings."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chat.schemas.decoding import decode
from chat.schemas.stack.analysis import AnalysisAnswer
from chat.schemas.stack.service import RagChatAnswer
from tests.api.live import make_users, say
from tests.live_stack import LiveStack

Json = dict[str, Any]
TEXT = "It opens on Monday"


@pytest.fixture(scope="module")
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    user = make_users(fake_stack, "ann-stack")[0]
    with httpx.Client(base_url=fake_stack.url, timeout=60, headers=user.headers) as client:
        for number in range(4):
            segments = [{"text": f"The harbour of town {number} opens on Monday.", "speaker": "Sarah"}]
            client.post("/index/transcript", json={"job_id": f"harbour-{number}", "segments": segments})
        yield client


QUESTION = f"When does the harbour open? [[say: {TEXT}]]"


@pytest.mark.parametrize(
    "body",
    [
        {"query": QUESTION, "max_tokens": 384, "temperature": 0.4, "session_id": None, "history_messages": []},
        {"message": QUESTION},
        {"messages": [{"role": "user", "content": QUESTION}]},
        {"messages": [{"role": "user", "content": QUESTION}], "context": "The harbour has a gate.", "query": "unused"},
        {"query": QUESTION, "use_rag": False, "speakers": ["sarah"], "start_date": None},
    ],
)
def test_a_chat_with_memories(client: httpx.Client, body: Json) -> None:
    response = client.post("/chat/rag", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    decode(RagChatAnswer, answer)
    assert [answer[name] for name in ("answer", "response", "text", "message")] == [TEXT] * 4
    assert answer["sources_count"] == len(answer["sources"]) > 0
    assert (answer["has_context"], answer["task_id"]) == (True, answer["generation_id"])
    assert any("harbour" in source["text"] for source in answer["sources"])


@pytest.mark.parametrize(("more", "n_sources"), [({"top_k_results": 2}, 2), ({"rag_top_k": 1, "top_k_results": 3}, 1)])
def test_how_many_memories(client: httpx.Client, more: Json, n_sources: int) -> None:
    assert client.post("/chat/rag", json={"query": QUESTION} | more).json()["sources_count"] <= n_sources


def test_without_a_memory_it_answers_all_the_same(client: httpx.Client) -> None:
    body = {"query": f"[[say: {TEXT}]]", "speakers": ["Nobody"]}
    answer = client.post("/chat/rag", json=body).json()
    assert (answer["answer"], answer["has_context"], answer["sources"]) == (TEXT, False, [])


def test_it_goes_on_with_a_conversation(client: httpx.Client) -> None:
    first = client.post("/chat/rag", json={"query": QUESTION}).json()
    more = {"query": QUESTION, "conversation_id": first["conversation_id"]}
    assert client.post("/chat/rag", json=more).json()["conversation_id"] == first["conversation_id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "messages"),
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"query": QUESTION, "top_k_results": -2}, "top_k_results"),
        (say("x", message="y"), "message"),
    ],
)
def test_bad_input_is_named(client: httpx.Client, body: Json, field: str) -> None:
    response = client.post("/chat/rag", json=body)
    assert (response.status_code, response.json()["error"]["field"]) == (400, field)


def test_statistics_and_settings(client: httpx.Client) -> None:
    health = client.get("/health").json()
    stats = client.get("/stats").json()
    for name in ("model_loaded", "model_on_gpu", "model_name", "context_size", "gpu_layers"):
        assert stats[name] == health[name], name
    assert stats["model_loaded"] is True
    models = client.get("/models/list").json()
    assert models["current_model"] == health["model_name"] == models["models"][0]["name"]
    assert models["current_cache"] in models["cache_types"]
    settings = client.get("/settings/").json()
    assert settings["available_context_sizes"] == [settings["context_size"]] == [health["context_size"]]
    assert (settings["model_on_gpu"], settings["cache_type"]) == (False, "fp16")


def test_the_models_of_openais_clients_are_still_there(client: httpx.Client) -> None:
    assert client.get("/models").json()["object"] == "list"
    assert client.get("/v1/models/list").json()["error"]["code"] == "model_not_found"


class TestAnalysis:
    def test_the_chosen_segments_are_in_the_prompt(self, client: httpx.Client) -> None:
        prompt = f"Judge these: {{transcripts}} [[say: {TEXT}]]"
        body = {"filters": {"speakers": "sarah", "limit": 2, "context_lines": 1}, "custom_prompt": prompt}
        response = client.post("/analyze", json=body | {"max_tokens": 64})
        assert response.status_code == 200, response.text
        answer = response.json()
        decode(AnalysisAnswer, answer)
        assert (answer["success"], answer["analysis"], answer["transcripts_analyzed"]) == (True, TEXT, 2)
        assert answer["filters_applied"] == body["filters"]
        assert answer["prompt_used"].startswith("Judge these: [20")
        assert "Sarah: The harbour of town" in answer["prompt_used"]
        assert answer["model"]

    def test_it_becomes_no_conversation(self, client: httpx.Client) -> None:
        before = client.get("/api/conversations/").json()["count"]
        assert client.post("/analyze", json={"custom_prompt": f"[[say: {TEXT}]]"}).json()["analysis"] == TEXT
        assert client.get("/api/conversations/").json()["count"] == before

    def test_without_a_prompt_it_has_one(self, client: httpx.Client) -> None:
        answer = client.post("/analyze", json={"max_tokens": 5}).json()
        assert (answer["success"], answer["transcripts_analyzed"] > 0) == (True, True)

    def test_nothing_matches(self, client: httpx.Client) -> None:
        answer = client.post("/analyze", json={"filters": {"speakers": ["Nobody"]}}).json()
        assert (answer["success"], answer["analysis"]) == (False, "")
        assert "no transcript segments" in answer["error"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"filters": 7}, "filters"),
            ({"filters": {"limit": -2}}, "filters.limit"),
            ({"filters": {"start_date": "soon"}}, "filters.start_date"),
            ({"custom_prompt": 7}, "custom_prompt"),
            ({"custom_prompt": "{transcripts} {transcripts}"}, "custom_prompt"),
            ({"custom_prompt": "{transcripts}" * 7_000}, "custom_prompt"),
            ({"temperature": "hot"}, "temperature"),
        ],
    )
    def test_bad_input_is_named(self, client: httpx.Client, body: Json, field: str) -> None:
        response = client.post("/analyze", json=body)
        assert (response.status_code, response.json()["error"]["field"]) == (400, field)

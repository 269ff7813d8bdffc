"""A conversation of several turns: continued by id and by history, and never read again without need."""

import httpx
import pytest

from tests.live_stack import LiveStack

pytestmark = pytest.mark.real_model

QUESTION = {"role": "user", "content": "What is the capital of France?"}


def ask(client: httpx.Client, **body: object) -> dict[str, object]:
    response = client.post("/chat", json={"max_tokens": 24, "temperature": 0, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def test_a_client_that_sends_the_whole_history_continues_its_conversation(real_stack: LiveStack) -> None:
    with httpx.Client(base_url=real_stack.url, timeout=100) as client:
        first = ask(client, messages=[QUESTION])
        follow_up = {"role": "user", "content": "And of Italy?"}
        history = [QUESTION, {"role": "assistant", "content": first["response"]}, follow_up]
        second = ask(client, messages=history)
        assert second["conversation_id"] == first["conversation_id"]
        stored = client.get(f"/api/conversations/{first['conversation_id']}/messages/").json()["results"]
    assert [m["role"] for m in stored] == ["user", "assistant", "user", "assistant"]
    assert stored[1]["content"] == first["response"]
    assert stored[3]["content"] == second["response"]


def test_the_next_turn_reads_only_what_is_new(real_stack: LiveStack) -> None:
    with httpx.Client(base_url=real_stack.url, timeout=100) as client:
        first = ask(client, messages=[QUESTION])
        second = ask(client, conversation_id=first["conversation_id"], message="And of Italy?")
    before, usage = first["usage"], second["usage"]
    assert isinstance(before, dict)
    assert isinstance(usage, dict)
    # All of the first prompt and the answer but for its last token, which is sampled and not yet computed.
    assert usage["cached_tokens"] >= before["prompt_tokens"]
    assert usage["cached_tokens"] < usage["prompt_tokens"]

"""A model that thinks, in a running service: thoughts on every interface, stored, bounded, the same after kills."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets

from chat.schemas.decoding import decode
from chat.schemas.openai.chat_answers import ChatCompletionAnswer, ChatCompletionChunk
from tests.api.live import Line, answer_over, read_stream, say, text_of
from tests.live_stack import LiveStack, running_stack, wait_until

# Gemma's turns, after which the scripted model is in the middle of the script: the prompt has its first characters.
OPENED = "<think>\n"
CLOSED = "<think>\n\n</think>\n\n"
TEMPLATE = """{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<start_of_turn>model
{{ m.content }}<end_of_turn>
{% elif m.role == 'user' %}<start_of_turn>user
{{ m.content }}<end_of_turn>
{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}<start_of_turn>model
{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% else %}{{ '<think>\n' }}"""
TEMPLATE += "{% endif %}"
THOUGHT, ANSWER = "Let me see: 2 < 3 </thi", "Four. [1] <think>"
SCRIPT = f"{OPENED}{THOUGHT}\n</think>\n\n{ANSWER}"


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    environment = {"GEMMA_CHAT_TEMPLATE": TEMPLATE, "GEMMA_CONTEXT_SIZE": "8192", "JSON_PATIENCE_SECS": "60"}
    with running_stack(**environment) as stack:
        yield stack


@pytest.fixture
def client(stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        yield client


def thought_of(lines: list[Line]) -> str:
    return "".join(line.get("thought", "") for line in lines)


def chunks_of(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    chunks: list[dict[str, Any]] = [json.loads(item) for item in data]
    for chunk in chunks:
        decode(ChatCompletionChunk, chunk)
    return chunks


def joined(chunks: list[dict[str, Any]], field: str) -> str:
    return "".join(choice["delta"].get(field) or "" for chunk in chunks for choice in chunk["choices"])


def test_the_template_is_used(client: httpx.Client) -> None:
    health = client.get("/health").json()
    assert (health["chat_template"]["ok"], health["chat_template"]["detail"]) == (True, "used")


def test_whole_answers_have_thought_and_text_apart(client: httpx.Client) -> None:
    chat = client.post("/chat", json=say(SCRIPT)).json()
    assert (chat["response"], chat["thought"], chat["finish_reason"]) == (ANSWER, THOUGHT, "stop")
    assert 0 < chat["usage"]["thought_tokens"] < chat["usage"]["completion_tokens"]
    answer = client.post("/v1/chat/completions", json=say(SCRIPT)).json()
    decode(ChatCompletionAnswer, answer)
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (ANSWER, THOUGHT)
    details = answer["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == chat["usage"]["thought_tokens"]
    stored = client.get(f"/api/conversations/{chat['conversation_id']}/messages/").json()["results"][-1]
    assert (stored["content"], stored["thought"]) == (ANSWER, THOUGHT)


def test_streams_have_thought_and_text_apart(client: httpx.Client) -> None:
    lines = read_stream(client, "/chat/stream", say(SCRIPT))
    assert (text_of(lines), thought_of(lines)) == (ANSWER, THOUGHT)
    assert not any(line["token"] and line.get("thought") for line in lines)
    chunks = chunks_of(client, say(SCRIPT))
    assert (joined(chunks, "content"), joined(chunks, "reasoning_content")) == (ANSWER, THOUGHT)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert not any("content" in delta for delta in deltas if "reasoning_content" in delta)


async def test_frames_of_a_socket_have_thought_and_text_apart(stack: LiveStack) -> None:
    async with websockets.connect(stack.url.replace("http", "ws") + "/ws/chat") as socket:
        frames = await answer_over(socket, {"type": "chat"} | say(SCRIPT))
    assert (text_of(frames), thought_of(frames)) == (ANSWER, THOUGHT)


def test_a_stream_resumed_at_each_line_has_the_same_rest(client: httpx.Client) -> None:
    lines = read_stream(client, "/chat/stream", say(SCRIPT))
    path = f"/chat/stream/{lines[0]['generation_id']}"
    whole = {line["id"]: line for line in lines[1:] if "status" not in line}
    for after in range(0, max(whole) - 1, 3):
        rest = [line for line in read_stream(client, f"{path}?after={after}")[1:] if "status" not in line]
        assert rest == [line for number, line in whole.items() if number > after]


def test_an_answer_that_ends_within_its_thought_is_empty(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=say(SCRIPT, max_tokens=6)).json()
    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert choice["message"]["reasoning_content"] == THOUGHT[:6]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 6


def test_stop_strings_end_the_answer_and_not_the_thought(client: httpx.Client) -> None:
    chat = client.post("/chat", json=say(f"{OPENED}See the stop.</think>Go on, stop it.", stop=["stop"])).json()
    assert (chat["thought"], chat["response"], chat["finish_reason"]) == ("See the stop.", "Go on, ", "stop")


def test_an_effort_bounds_the_thought(client: httpx.Client) -> None:
    body = say(f"{OPENED}{'m' * 300}", reasoning_effort="low", max_tokens=100)
    answer = client.post("/v1/chat/completions", json=body).json()
    message = answer["choices"][0]["message"]
    assert message["reasoning_content"] == "m" * 20
    # The scripted model goes on with its script wherever it is.
    assert message["content"].startswith("m")
    assert answer["usage"]["completion_tokens"] == 100


@pytest.mark.parametrize("more", [{"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}])
def test_without_thinking_the_prompt_has_an_empty_thought(client: httpx.Client, more: dict[str, Any]) -> None:
    chat = client.post("/chat", json=say(f"{CLOSED}Four.", **more)).json()
    assert (chat["response"], "thought" in chat) == ("Four.", False)


def response_of(client: httpx.Client, script: str, **more: object) -> tuple[str, str]:
    """Thought and text of a response."""
    answer = client.post("/v1/responses", json={"input": f"[[say: {script}]]"} | more)
    assert answer.status_code == 200, answer.text
    texts = {item["type"]: item["content"][0]["text"] for item in answer.json()["output"]}
    return texts.get("reasoning", ""), texts.get("message", "")


def message_of(client: httpx.Client, script: str, **more: object) -> tuple[str, str]:
    """Thought and text of a message in Anthropic's form."""
    messages = [{"role": "user", "content": f"[[say: {script}]]"}]
    answer = client.post("/v1/messages", json={"model": "", "max_tokens": 100, "messages": messages} | more)
    assert answer.status_code == 200, answer.text
    blocks = {block["type"]: block for block in answer.json()["content"]}
    return blocks.get("thinking", {}).get("thinking", ""), blocks.get("text", {}).get("text", "")


def test_other_interfaces_have_thought_and_text_apart(client: httpx.Client) -> None:
    assert response_of(client, SCRIPT) == message_of(client, SCRIPT) == (THOUGHT, ANSWER)


@pytest.mark.parametrize(
    "more",
    [
        {"reasoning": {"effort": "none"}},
        {"reasoning_effort": "none"},
        {"reasoning": {"effort": "high"}, "reasoning_effort": "none"},
        {"reasoning": {"effort": "high"}, "chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_a_response_without_thinking(client: httpx.Client, more: dict[str, Any]) -> None:
    assert response_of(client, f"{CLOSED}Four.", **more) == ("", "Four.")


@pytest.mark.parametrize(
    ("effort", "n_thought"), [("minimal", 20), ("low", 20), ("medium", 50), ("xhigh", 80), ("ultra", 100), (None, 100)]
)
def test_the_effort_of_a_response_bounds_its_thought(client: httpx.Client, effort: str | None, n_thought: int) -> None:
    script = f"{OPENED}{'m' * 300}"
    thought, _ = response_of(client, script, reasoning={"effort": effort}, max_output_tokens=100)
    assert thought == "m" * n_thought


@pytest.mark.parametrize("more", [{"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}])
def test_a_message_without_thinking(client: httpx.Client, more: dict[str, Any]) -> None:
    more |= {"output_config": {"effort": "high"}}
    assert message_of(client, f"{CLOSED}Four.", **more) == ("", "Four.")
    counted = {
        name: client.post(
            "/v1/messages/count_tokens",
            json={"messages": [{"role": "user", "content": "x"}], "thinking": {"type": name}},
        ).json()["input_tokens"]
        for name in ("disabled", "adaptive")
    }
    assert counted["disabled"] == counted["adaptive"] + len(CLOSED) - len(OPENED)


@pytest.mark.parametrize(
    ("more", "n_thought"),
    [
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, 20),
        ({"thinking": {"type": "enabled", "budget_tokens": 50}, "output_config": {"effort": "max"}}, 50),
        ({"thinking": {"type": "enabled", "budget_tokens": 90}, "output_config": {"effort": "max"}}, 80),
        ({"thinking": {"type": "enabled", "budget_tokens": 30}}, 30),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, 1),
        ({"thinking": {"type": "enabled", "budget_tokens": 30}, "reasoning_effort": "medium"}, 50),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, 100),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "ultra"}}, 100),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "medium"}, 50),
    ],
)
def test_the_effort_of_a_message_bounds_its_thought(client: httpx.Client, more: dict[str, Any], n_thought: int) -> None:
    thought, _ = message_of(client, f"{OPENED}{'m' * 300}", **more)
    assert thought == "m" * n_thought


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": {"system": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    ],
)
def test_a_wrong_effort_is_named(client: httpx.Client, more: dict[str, Any], field: str) -> None:
    response = client.post("/chat", json=say("x", **more))
    assert (response.status_code, response.json()["error"]["field"].partition(".system")[0]) == (400, field)


def test_the_next_prompt_has_the_answer_without_its_thought(client: httpx.Client) -> None:
    first = client.post("/chat", json=say(SCRIPT)).json()
    body = say(SCRIPT) | {"conversation_id": first["conversation_id"]}
    second = client.post("/chat", json=body).json()
    assert (second["response"], second["thought"]) == (ANSWER, THOUGHT)
    n_shared = first["usage"]["prompt_tokens"] - len(OPENED)
    assert second["usage"]["cached_tokens"] >= n_shared
    # The answer and the second turn, none of the thought.
    assert second["usage"]["prompt_tokens"] < 2 * first["usage"]["prompt_tokens"] + len(ANSWER) + 10


def test_a_prefilled_answer_has_no_thought(client: httpx.Client) -> None:
    messages = [*say("And so on")["messages"], {"role": "assistant", "content": "And"}]  # type: ignore[misc]
    answer = client.post("/v1/chat/completions", json={"messages": messages}).json()
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": " so on",
        "refusal": None,
        "annotations": [],
    }


@pytest.mark.parametrize("victim", ["gemma-runner cpu", "gemma-worker"])
def test_a_kill_within_the_thought_changes_nothing(stack: LiveStack, client: httpx.Client, victim: str) -> None:
    thought, answer = "thinking " * 12, "the answer " * 6
    prompt = f"[[delay: 25]] [[say: {OPENED}{thought}</think>{answer}]]"
    lines: list[Line] = []
    with client.stream("POST", "/chat/stream", json={"message": prompt, "stop": ["ink"]}) as response:
        for raw in response.iter_lines():
            if raw.startswith("data: "):
                lines.append(json.loads(raw[6:]))
                if len([line for line in lines if "thought" in line]) == 30 and victim:
                    stack.process(victim).kill()
                    victim = ""
    assert (thought_of(lines), text_of(lines)) == (thought.strip(), answer)
    ids = [line["id"] for line in lines if "status" not in line]
    assert ids == sorted(set(ids))
    path = f"/chat/stream/{lines[0]['generation_id']}?after=30"
    wait_until(lambda: client.get("/health").status_code == 200, timeout_secs=30, what="the service is whole again")
    rest = read_stream(client, path)
    assert text_of(rest) == answer
    assert thought.strip().endswith(thought_of(rest))

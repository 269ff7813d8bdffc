"""Bodies: accepted fields and their defaults, and no conversion on the way."""

import json
import math
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from chat.enums import ChatRole, Strategy
from chat.errors import InvalidRequest, NotFound
from chat.rag.query import SourceFilters
from chat.schemas.chat_bodies import chat_request, completion_request
from chat.schemas.requests import ChatMessage, ChatRequest
from inference.models import Priority

HELLO = [{"role": "user", "content": "Hello"}]
ONE_ROLE = 'messages[0].role must be one of "system", "developer", "user", "assistant", "tool"'
ID = "6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10"


def refused(**body: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        chat_request({"messages": HELLO} | body)
    return caught.value


def test_the_smallest_request_has_the_defaults_of_the_wire_format() -> None:
    request = chat_request({"messages": HELLO})
    assert request == ChatRequest(messages=(ChatMessage(ChatRole.USER, "Hello"),), has_store_default=True)
    assert (request.max_tokens, request.temperature, request.rag_top_k, request.store) == (512, 0.7, 5, True)
    assert request.use_rag is None
    assert request.priority is Priority.INTERACTIVE


def test_every_field_arrives() -> None:
    body = {
        "messages": [{"role": "system", "content": "Be brief."}, *HELLO],
        "max_tokens": 7,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 0,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "repeat_last_n": -1,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.25,
        "logit_bias": {"5": 1.5, "6": False, "7": None},
        "seed": 42,
        "stop": ["\n", "User:"],
        "ignore_eos": True,
        "cache_prompt": False,
        "context": ["a note", {"text": "said", "speaker": "Ann", "metadata": {"score": 0.5}}],
        "use_rag": True,
        "rag_top_k": 3,
        "speakers": ["Ann"],
        "start_date": "2026-01-01",
        "end_date": "2026-02-01T10:00:00Z",
        "last_n_transcripts": 4,
        "bias_emotions": ["joy"],
        "session_id": "s1",
        "priority": "batch",
        "timeout_s": 30,
        "strategy": "truncate",
        "store": False,
    }
    request = chat_request(body)
    assert [message.role for message in request.messages] == [ChatRole.SYSTEM, ChatRole.USER]
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (7, 0.0, 0.5, 0)
    assert (request.min_p, request.repeat_penalty, request.repeat_last_n) == (0.1, 1.1, -1)
    assert (request.presence_penalty, request.frequency_penalty) == (-0.5, 0.25)
    assert request.logit_bias == {5: 1.5, 6: None, 7: None}
    assert (request.seed, request.stop, request.ignore_eos, request.cache_prompt) == (42, ("\n", "User:"), True, False)
    assert [item.text for item in request.context] == ["a note", "said"]
    assert request.context[1].metadata == {"speaker": "Ann", "score": 0.5}
    assert (request.use_rag, request.rag_top_k) == (True, 3)
    assert request.filters == SourceFilters(
        speakers=("Ann",),
        start_date="2026-01-01",
        end_date="2026-02-01T10:00:00Z",
        last_n_transcripts=4,
        bias_emotions=("joy",),
    )
    assert (request.session_id, request.priority, request.timeout_s) == ("s1", Priority.BATCH, 30.0)
    assert (request.strategy, request.store) == (Strategy.TRUNCATE, False)


def test_unknown_fields_are_ignored_and_null_is_nothing() -> None:
    extra: dict[str, object] = {"model": "gpt", "deep": [[{}]], "temperature": None, "stop": None, "use_rag": None}
    assert chat_request({"messages": HELLO} | extra) == chat_request({"messages": HELLO})


def test_the_seeds_plain_example_is_taken() -> None:
    body = {"messages": HELLO, "max_tokens": 512, "temperature": 0.7, "context": [], "use_rag": True, "rag_top_k": 5}
    assert chat_request(body).use_rag is True


def test_a_conversation_is_continued_by_a_message() -> None:
    request = chat_request({"conversation_id": ID, "message": "And then?"})
    assert (request.conversation_id, request.message, request.messages) == (UUID(ID), "And then?", ())


def test_minus_one_asks_for_a_random_seed() -> None:
    assert chat_request({"messages": HELLO, "seed": -1}).seed is None


def test_biases_may_come_as_llama_servers_pairs() -> None:
    assert chat_request({"messages": HELLO, "logit_bias": [[3, -1], [4, False]]}).logit_bias == {3: -1.0, 4: None}


def test_the_same_question_again_needs_no_message() -> None:
    request = chat_request({"conversation_id": ID, "replaces": ID})
    assert (request.replaces, request.message, request.messages) == (UUID(ID), None, ())
    assert chat_request({"conversation_id": ID, "replaces": ID, "message": "edited"}).message == "edited"
    with pytest.raises(NotFound) as caught:
        chat_request({"conversation_id": ID, "replaces": "nothing"})
    assert caught.value.field == "replaces"


@pytest.mark.parametrize(
    "conversation_id", ["nothing", " ", ID[:-1], "{" + ID + "}", "urn:uuid:" + ID, ID.replace("-", "")]
)
def test_an_id_that_cannot_exist_is_not_found(conversation_id: str) -> None:
    with pytest.raises(NotFound):
        chat_request({"conversation_id": conversation_id, "message": "Hello"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": "Hello"}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": HELLO * 10_001}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [*HELLO, {"role": "robot", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [*HELLO, *HELLO, {"role": "user", "content": 7}]}, "messages[2].content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"text": "a"}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "a"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "tool"}, *HELLO]}, "messages[0].content"),
        ({"messages": [*HELLO, {"role": "developer", "content": "x"}, *HELLO]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [*HELLO, {"role": "system", "content": "x"}, *HELLO]}, "messages[1].role"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"message": "both"}, "message"),
        ({"conversation_id": 7}, "conversation_id"),
        ({"conversation_id": ID, "messages": [*HELLO, *HELLO]}, "messages"),
    ],
)
def test_messages_are_checked_by_place(body: dict[str, Any], field: str) -> None:
    error = refused(**body)
    assert error.field == field
    assert error.message.startswith(field)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_tokens", [-2, 2**31, 1.5, "7", True, [], 10**400, -(10**400), 1e300, math.nan]),
        ("temperature", ["hot", math.nan, math.inf, -1, 1e9, True, "0.7", {}, 10**400]),
        ("top_p", [-0.1, 1.1, "1", math.nan]),
        ("top_k", [-2, 2.5, "40", 10**9, True]),
        ("min_p", [-0.1, 2, "0"]),
        ("repeat_penalty", [0, -1, math.inf]),
        ("repeat_last_n", [-2, 1.5, "64", True, 2**31]),
        ("presence_penalty", ["x", 1e6]),
        ("frequency_penalty", [math.nan, -1e6]),
        ("seed", [-2, 2**32, 1.5, "1", False]),
        ("ignore_eos", [1, 0, "true", []]),
        ("cache_prompt", ["yes", 1]),
        ("store", ["false", 0]),
        ("use_rag", ["true", 1]),
        ("rag_top_k", [-2, 2**63, 2.5, "five", "-2", "5.0", " 5", "٥", True, [5]]),
        ("priority", ["urgent", 1, ["batch"]]),
        ("strategy", ["forget", 3]),
        ("session_id", [7, "x" * 129]),
        ("timeout_s", [0, -1, "10", 10_000, math.nan]),
        ("last_n_transcripts", [-2, 0.5, "all", False, {}]),
        ("start_date", ["yesterday", 20260101, "2026-02-30"]),
        ("speakers", [7, {"a": 1}, "x" * 201, ["Ann"] * 101]),
        ("stop", [5, {"a": 1}, ["x"] * 17, "x" * 257, "\ud800"]),
        ("context", [5, ["x"] * 201]),
        (
            "logit_bias",
            ["5", 5, {"a": 1}, {"-1": 1}, {"5": "x"}, {"5": True}, {"5": math.nan}, [[1]], [[1, 2, 3]], [5]],
        ),
    ],
)
def test_every_field_refuses_what_it_does_not_mean(field: str, values: list[object]) -> None:
    for value in values:
        error = refused(**{field: value})
        assert (error.code, error.status) == ("invalid_request", 400), value
        assert error.field == field, value


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"stop": ["a", 5]}, "stop[1]"),
        ({"stop": ["x" * 257]}, "stop[0]"),
        ({"speakers": ["Ann", None]}, "speakers[1]"),
        ({"context": ["a", 5]}, "context[1]"),
        ({"context": [{"title": "no text"}]}, "context[0]"),
        ({"context": {"title": "no text"}}, "context[0]"),
        ({"stop": ["", None]}, "stop[1]"),
        ({"context": [{"text": "a", "score": math.nan}]}, "context[0]"),
        ({"context": [{"text": "a\0"}]}, "context[0]"),
        ({"context": [{"text": "a", "x": [[[[[[[[[[1]]]]]]]]]]}]}, "context[0]"),
    ],
)
def test_members_of_lists_are_named_by_index(body: dict[str, Any], field: str) -> None:
    assert refused(**body).field == field


def test_neither_messages_nor_message() -> None:
    bodies: list[object] = [{}, {"conversation_id": ID}, {"messages": None}]
    for body in bodies:
        with pytest.raises(InvalidRequest) as caught:
            chat_request(body)
        assert caught.value.field == "messages"


def test_max_tokens_is_left_to_those_who_know_the_context_in_use(settings: Settings) -> None:
    """The configured size may be more than the model's: naming it would send the caller into a second refusal."""
    settings.GEMMA_CONTEXT_SIZE = 100
    assert chat_request({"messages": HELLO, "max_tokens": 101}).max_tokens == 101


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"stop": "User:"}, {"stop": ["User:"]}),
        ({"stop": "\n\n"}, {"stop": ["\n\n"]}),
        ({"stop": "😀"}, {"stop": ["😀"]}),
        ({"stop": []}, {}),
        ({"stop": ""}, {}),
        ({"stop": [""]}, {}),
        ({"stop": ["", "User:", ""]}, {"stop": ["User:"]}),
        ({"rag_top_k": 0}, {}),
        ({"rag_top_k": ""}, {}),
        ({"rag_top_k": "0"}, {}),
        ({"rag_top_k": -1}, {"rag_top_k": 100}),
        ({"rag_top_k": 101}, {"rag_top_k": 100}),
        ({"rag_top_k": 2**62}, {"rag_top_k": 100}),
        ({"rag_top_k": "7"}, {"rag_top_k": 7}),
        ({"last_n_transcripts": 0}, {}),
        ({"last_n_transcripts": "0"}, {}),
        ({"last_n_transcripts": -1}, {}),
        ({"last_n_transcripts": ""}, {}),
        ({"last_n_transcripts": "3"}, {"last_n_transcripts": 3}),
        ({"last_n_transcripts": 10**9}, {"last_n_transcripts": 100_000}),
        ({"speakers": "Ann"}, {"speakers": ["Ann"]}),
        ({"speakers": ""}, {}),
        ({"speakers": ["", "Ann", " "]}, {"speakers": ["Ann"]}),
        ({"bias_emotions": "joy"}, {"bias_emotions": ["joy"]}),
        ({"start_date": "", "end_date": ""}, {}),
        ({"context": {"text": "a note", "title": "t"}}, {"context": [{"text": "a note", "title": "t"}]}),
        ({"context": {"content": "a note"}}, {"context": ["a note"]}),
        ({"max_tokens": 0}, {}),
        ({"max_tokens": None}, {}),
        ({"max_tokens": 0.0}, {}),
        ({"max_tokens": 5.0}, {"max_tokens": 5}),
        ({"max_tokens": -1.0}, {"max_tokens": -1}),
        ({"seed": 7.0}, {"seed": 7}),
        ({"rag_top_k": 3.0}, {"rag_top_k": 3}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": -1.0}, {"top_k": 0}),
        ({"conversation_id": ""}, {}),
        ({"conversation_id": None}, {}),
        ({"replaces": ""}, {}),
        ({"context": "a note"}, {"context": ["a note"]}),
        ({"context": ""}, {}),
        ({"context": ["", "a note"]}, {"context": ["a note"]}),
        ({"context": [{"content": "a note"}]}, {"context": ["a note"]}),
        (
            {"context": [{"content": "a note", "text": None, "title": "t"}]},
            {"context": [{"text": "a note", "title": "t"}]},
        ),
        ({"context": [{"content": "a note", "metadata": {"a": 1}}]}, {"context": [{"text": "a note", "a": 1}]}),
    ],
)
def test_what_other_senders_write_means_the_same(sent: dict[str, Any], meant: dict[str, Any]) -> None:
    assert chat_request({"messages": HELLO} | sent) == chat_request({"messages": HELLO} | meant)


@pytest.mark.parametrize(
    ("messages", "meant"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], [("user", "Hello")]),
        ([{"role": "user", "content": [{"text": "a"}, {"type": "text", "text": "b"}]}], [("user", "a\nb")]),
        (
            [*HELLO, {"role": "assistant", "content": [{"type": "text", "text": "Hi", "annotations": []}]}, *HELLO],
            [("user", "Hello"), ("assistant", "Hi"), ("user", "Hello")],
        ),
        (
            [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *HELLO],
            [("system", "Be brief."), ("user", "Hello")],
        ),
        (
            [*HELLO, {"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "tool", "content": "12"}],
            [("user", "Hello"), ("assistant", ""), ("user", "12")],
        ),
        (
            [*HELLO, {"role": "assistant", "tool_calls": [{}]}, {"role": "tool", "content": ""}, *HELLO],
            [("user", "Hello"), ("assistant", ""), ("user", ""), ("user", "Hello")],
        ),
        (
            [*HELLO, {"role": "assistant", "content": []}, *HELLO],
            [("user", "Hello"), ("assistant", ""), ("user", "Hello")],
        ),
        ([{"role": "developer", "content": "Be brief."}, *HELLO], [("system", "Be brief."), ("user", "Hello")]),
    ],
)
def test_messages_of_other_senders(messages: list[dict[str, Any]], meant: list[tuple[str, str]]) -> None:
    assert [(item.role.value, item.content) for item in chat_request({"messages": messages}).messages] == meant


@pytest.mark.parametrize("more", [{}, {"conversation_id": None}, {"conversation_id": ""}, {"store": False}])
def test_a_message_alone_begins_a_conversation(more: dict[str, object]) -> None:
    alone, listed = chat_request({"message": "Hello"} | more), chat_request({"messages": HELLO} | more)
    assert replace(alone, has_store_default=False) == replace(listed, has_store_default=False)
    # It is meant to be kept, whatever the default of the service that sends it.
    assert not alone.has_store_default


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_tokens": -2}, "max_tokens must be at least -1"),
        ({"max_tokens": 2**31}, "max_tokens must be at most 2147483647"),
        ({"max_tokens": "5"}, "max_tokens must be a whole number"),
        ({"rag_top_k": -2}, "rag_top_k must be at least -1"),
        ({"rag_top_k": "many"}, "rag_top_k must be a whole number of at least -1"),
        ({"rag_top_k": 2.5}, "rag_top_k must be a whole number or a string"),
        ({"temperature": 101}, "temperature must be at most 100"),
        ({"temperature": math.nan}, "temperature must be a finite number"),
        ({"temperature": 10**400}, "temperature must be a finite number"),
        ({"temperature": "0.5"}, "temperature must be a number"),
        ({"store": 1}, "store must be true or false"),
        ({"stop": ["x"] * 17}, "stop must have at most 16 entries"),
        ({"stop": ["x" * 257]}, "stop[0] must have at most 256 characters"),
        ({"stop": 5}, "stop must be a string or a list"),
        ({"messages": []}, "messages must not be empty"),
        ({"messages": [{}]}, "messages[0].role is required"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is required"),
        ({"messages": [{"role": "x" * 500, "content": "x"}]}, ONE_ROLE),
        ({"messages": [{"role": 7, "content": "x"}]}, ONE_ROLE),
        ({"priority": "urgent"}, 'priority must be one of "batch", "interactive"'),
        ({"strategy": "forget"}, 'strategy must be one of "summarize", "truncate", "error"'),
        ({"session_id": "a\0"}, "session_id must not contain NUL characters or lone surrogates"),
        ({"start_date": "tomorrow"}, "start_date must be a date or time in ISO 8601"),
        ({"start_date": "2026-02-01", "end_date": "2026-01-01"}, "end_date must not be before start_date"),
    ],
)
def test_an_error_is_one_sentence(body: dict[str, Any], message: str) -> None:
    assert refused(**body).message == message


def test_a_body_that_is_no_object_is_named_as_the_body() -> None:
    bodies: list[object] = [[], "x", 7, None]
    for body in bodies:
        with pytest.raises(InvalidRequest) as caught:
            chat_request(body)
        assert (caught.value.message, caught.value.field) == ("the body must be a JSON object", None)


@pytest.mark.parametrize("half", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_half_a_surrogate_pair(half: str) -> None:
    """msgspec stumbles over it in the name of a field and where it compares texts."""
    assert chat_request({"messages": HELLO, half: 1}) == chat_request({"messages": HELLO})
    assert chat_request({"messages": [HELLO[0] | {half: 1}]}) == chat_request({"messages": HELLO})
    for name in ("session_id", "priority", "strategy", "stop", "start_date"):
        assert refused(**{name: half}).field == name
    assert refused(messages=[{"role": half, "content": "x"}]).field == "messages[0].role"
    assert refused(messages=[{"role": "user", "content": "x", half: half}, {"role": "user"}]).field
    assert refused(context=[{"text": "a", half: 1}]).field == "context[0]"
    assert refused(**{half: 1, "context": [{"text": half}]}).field == "context[0]"


def test_ten_thousand_stop_strings_are_refused() -> None:
    assert refused(stop=[str(i) for i in range(10_000)]).field == "stop"


def test_an_empty_answer_in_a_history_is_fine() -> None:
    history = [*HELLO, {"role": "assistant", "content": ""}, *HELLO]
    assert chat_request({"messages": history}).messages[1].content == ""


def test_a_completion_needs_a_prompt() -> None:
    assert completion_request({"prompt": "Once", "max_tokens": 3}).prompt == "Once"
    bodies: list[object] = [{}, {"prompt": ""}, {"prompt": 7}, {"prompt": ["a"]}]
    for body in bodies:
        with pytest.raises(InvalidRequest) as caught:
            completion_request(body)
        assert caught.value.field == "prompt"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*ChatRequest.__dataclass_fields__, "speakers", "start_date"])


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_whatever_comes_is_a_request_or_a_refusal(body: dict[str, Any]) -> None:
    try:
        request = chat_request({"messages": HELLO} | body)
    except (InvalidRequest, NotFound):
        return
    # An accepted request can be written as standard JSON: no NaN, no lone surrogates.
    json.dumps([item.metadata for item in request.context], allow_nan=False).encode()
    assert len(request.digest) == 64

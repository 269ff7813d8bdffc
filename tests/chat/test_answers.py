"""Fields of an answer for clients, and that none is wrong."""

import json
from typing import Any

import pytest

from chat.models import Message
from chat.rag.retrieval.citations import cited_labels
from chat.rag.sources import ContextItem
from chat.schemas.answers import answer, completion, final_line, message_body
from chat.schemas.requests import CompletionRequest
from chat.services import turns
from chat.services.turns import Turn
from inference.models import Generation, Status
from tests.chat.conversing import ANN, chat, finish

TIMINGS = {"queue": 3.0, "gpu_wait": 1200.0, "load": 0.0, "prefill": 400.0, "first_token": 420.0, "decode": 3000.0}


def loaded(turn: Turn) -> Generation:
    return turns.get_generation(caller=ANN, generation_id=turn.generation_id)


@pytest.fixture
def turn(db: None) -> Turn:
    """A finished turn with two documents of which one is cited."""
    started = chat("u:hello", context=(ContextItem("first"), ContextItem("second", {"speaker": "Ann"})))
    devices = [{"device": "cpu", "tokens": 4}, {"device": "gpu", "tokens": 6}]
    finish(started, "As said [2].", timings=TIMINGS, devices=devices, model_name="fake-it")
    return started


def test_the_seeds_fields(turn: Turn) -> None:
    body = answer(loaded(turn))
    assert body["response"] == "As said [2]."
    assert body["model"] == "fake-it"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    assert body["rag_context_used"] == 2
    assert body["gpu_wait_time"] == 1.2
    assert body["inference_time"] == 3.4


def test_our_additions(turn: Turn) -> None:
    body = answer(loaded(turn))
    assert body["conversation_id"] == str(turn.conversation_id)
    assert body["message_id"] == str(turn.message_id)
    assert body["generation_id"] == str(turn.generation_id)
    assert body["finish_reason"] == "stop"
    assert body["device"] == "gpu"
    assert [device["tokens"] for device in body["devices"]] == [4, 6]
    assert body["timings"] == TIMINGS
    assert body["usage"]["cached_tokens"] == 0
    assert [(source["label"], source["cited"], source["speaker"]) for source in body["sources"]] == [
        ("1", False, ""),
        ("2", True, "Ann"),
    ]
    assert "history" not in body["usage"]
    assert "rag_error" not in body
    json.dumps(body, allow_nan=False)


def test_the_last_line_of_a_stream_says_the_same(turn: Turn) -> None:
    line, body = final_line(loaded(turn)), answer(loaded(turn))
    assert {name: body[name] for name in line} == line
    assert {"usage", "finish_reason", "sources", "timings"} <= set(line)
    assert "error" not in line


def test_what_was_left_out_is_said(turn: Turn) -> None:
    Generation.objects.update(details={"history": {"strategy": "truncate", "messages_left_out": 4}})
    assert answer(loaded(turn))["usage"]["history"] == {"strategy": "truncate", "messages_left_out": 4}


@pytest.mark.parametrize(
    ("columns", "reason", "error"),
    [
        ({"status": Status.COMPLETE, "finish_reason": "length"}, "length", None),
        ({"status": Status.INTERRUPTED, "finish_reason": "cancelled"}, "cancelled", None),
        ({"status": Status.INTERRUPTED, "finish_reason": ""}, "cancelled", None),
        ({"status": Status.INTERRUPTED, "error_code": "timeout", "error_message": "over"}, "stop", ("timeout", "over")),
        ({"status": Status.FAILED, "finish_reason": "", "error_code": "x", "error_message": "y"}, None, ("x", "y")),
        ({"status": Status.FAILED, "finish_reason": ""}, None, ("failed", "")),
        ({"status": Status.RUNNING, "finish_reason": ""}, None, None),
    ],
)
def test_how_it_ended(turn: Turn, columns: dict[str, Any], reason: str | None, error: tuple[str, str] | None) -> None:
    Generation.objects.update(**columns)
    line = final_line(loaded(turn))
    assert line["finish_reason"] == reason
    assert line.get("error") == (error and {"code": error[0], "message": error[1]})


def test_the_entries_of_a_message_list(turn: Turn) -> None:
    question, reply = (message_body(message) for message in Message.objects.in_order())
    names = {"role", "content", "status", "finish_reason", "usage", "timings", "device", "sources"}
    assert names <= set(question)
    assert names <= set(reply)
    assert (question["status"], question["usage"], question["content"]) == ("complete", None, "hello")
    assert (reply["content"], reply["device"], len(reply["sources"])) == ("As said [2].", "gpu", 2)


def test_lists_do_not_ask_the_database_per_message(turn: Turn, django_assert_num_queries: Any) -> None:  # noqa: ANN401
    with django_assert_num_queries(1):
        assert len([message_body(message) for message in Message.objects.in_order()]) == 2


@pytest.mark.django_db
def test_a_completion() -> None:
    turn = turns.start_completion(caller=ANN, request=CompletionRequest(prompt="Once"))
    finish(turn, "upon", devices=[{"device": "cpu", "tokens": 5}], model_name="fake-it")
    body = completion(loaded(turn))
    assert (body["text"], body["tokens_generated"], body["mode"], body["model"]) == ("upon", 4, "cpu", "fake-it")
    assert body["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", set()),
        ("See [1] and [12].", {"1", "12"}),
        ("Both [1][3], and [2, 4;5].", {"1", "2", "3", "4", "5"}),
        ("From [2-4] on.", {"2", "3", "4"}),
        ("1, (1), [a], [1", set()),
        ("array[10000000000] of [2024], `rows[1]`", set()),
    ],
)
def test_labels_really_in_the_text(text: str, labels: set[str]) -> None:
    assert cited_labels(text) == labels

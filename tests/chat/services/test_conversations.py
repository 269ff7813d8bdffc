"""Conversations of a caller: list, search, create, change, delete, export; never those of another caller."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from chat.errors import NotFound
from chat.models import Conversation, Message, Retrieval
from chat.rag.sources import ContextItem
from chat.services.conversations import (
    conversations_of,
    create_conversation,
    delete_conversation,
    export_conversation,
    export_markdown,
    get_conversation,
    update_conversation,
)
from inference.models import Generation, Status
from tests.chat.conversing import ANN, BOB, chat, finish, generation_of, more

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


def test_a_list_is_the_callers_own_newest_first() -> None:
    first, second = chat("u:one"), chat("u:two")
    chat("u:three", caller=BOB)
    finish(first)
    assert [row.pk for row in conversations_of(ANN)] == [second.conversation_id, first.conversation_id]
    more(first, "again")
    assert [row.pk for row in conversations_of(ANN)] == [first.conversation_id, second.conversation_id]


@pytest.mark.parametrize("text", ["DEADLINE", "Friday", "question about"])
def test_search_looks_into_titles_messages_and_answers(text: str) -> None:
    turn = chat("u:A question about the deadline")
    finish(turn, "It moved to Friday. To friday.")
    chat("u:something else")
    assert [row.pk for row in conversations_of(ANN).search(text)] == [turn.conversation_id]
    assert not conversations_of(BOB).search(text).exists()


def test_a_conversation_made_in_advance() -> None:
    conversation = create_conversation(caller=ANN, title="Plans", system_prompt="Be brief.")
    turn = chat(conversation_id=conversation.pk, message="hello")
    assert get_conversation(caller=ANN, conversation_id=conversation.pk).title == "Plans"
    assert turn.conversation_id == conversation.pk


def test_changing_what_is_given_only() -> None:
    conversation = create_conversation(caller=ANN, title="Plans", system_prompt="Be brief.")
    update_conversation(caller=ANN, conversation_id=conversation.pk, title="New")
    changed = update_conversation(caller=ANN, conversation_id=conversation.pk, system_prompt="")
    assert (changed.title, changed.system_prompt) == ("New", "")


DENIED: list[Callable[..., Any]] = [
    get_conversation,
    update_conversation,
    delete_conversation,
    export_conversation,
    export_markdown,
]


@pytest.mark.parametrize("call", DENIED)
def test_anybody_elses_is_not_found(call: Callable[..., Any]) -> None:
    conversation = create_conversation(caller=ANN, title="Plans")
    for caller, conversation_id in ((BOB, conversation.pk), (ANN, uuid.uuid4())):
        with pytest.raises(NotFound):
            call(caller=caller, conversation_id=conversation_id)
    assert Conversation.objects.get().title == "Plans"


def test_deleting_takes_everything_along() -> None:
    untouched = chat("u:other")
    turn = chat("u:one", context=(ContextItem("document"),))
    finish(turn)
    running = more(turn, "two")
    Generation.objects.filter(pk=running.generation_id).update(status=Status.RUNNING)
    assert turn.conversation_id
    delete_conversation(caller=ANN, conversation_id=turn.conversation_id)
    assert [row.pk for row in Conversation.objects.all()] == [untouched.conversation_id]
    assert Message.objects.count() == 2
    assert not Retrieval.objects.exists()
    assert [row.pk for row in Generation.objects.all()] == [untouched.generation_id]


def test_export_as_json() -> None:
    turn = chat("s:Be brief.", "u:one", context=(ContextItem("the document", {"title": "Plan"}),))
    finish(turn, "first [1]", devices=[{"device": "cpu", "tokens": 3}], timings={"decode": 12.0}, model_name="fake-it")
    assert turn.conversation_id
    exported = export_conversation(caller=ANN, conversation_id=turn.conversation_id)
    assert (exported["title"], exported["system_prompt"]) == ("one", "Be brief.")
    question, reply = exported["messages"]
    assert (question["role"], question["content"], question["sources"]) == ("user", "one", [])
    assert (reply["content"], reply["status"], reply["finish_reason"], reply["device"]) == (
        "first [1]",
        "complete",
        "stop",
        "cpu",
    )
    assert reply["generation_id"] == str(turn.generation_id)
    assert [(source["title"], source["cited"]) for source in reply["sources"]] == [("Plan", True)]


def test_export_as_markdown() -> None:
    turn = chat("u:# not a heading\nof ours", context=(ContextItem("the document", {"title": "Plan"}),))
    finish(turn, "first [1]")
    stopped = more(turn, "two")
    finish(stopped, "", status=Status.FAILED, error_code="runner_crashed", finish_reason="")
    assert turn.conversation_id
    text = export_markdown(caller=ANN, conversation_id=turn.conversation_id)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# # not a heading of ours", "## You", "## Gemma", "## You", "## Gemma"]
    assert "> # not a heading\n> of ours" in text
    assert "> first [1]\n\nSources:\n\n- [1] Plan: the document" in text
    assert text.endswith("_(no answer)_\n\n_failed_\n")


def test_a_failed_answer_says_why() -> None:
    turn = chat("u:one")
    finish(turn, "", status=Status.FAILED, error_code="runner_crashed", error_message="it died", finish_reason="")
    assert turn.conversation_id
    [_, reply] = export_conversation(caller=ANN, conversation_id=turn.conversation_id)["messages"]
    assert reply["error"] == {"code": "runner_crashed", "message": "it died"}
    assert generation_of(turn).message.status == Status.FAILED

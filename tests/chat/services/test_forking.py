"""Edited and regenerated questions: the contents of the branch, and its unchanged origin."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.enums import Strategy
from chat.errors import ConversationBusy, InvalidRequest, NotFound
from chat.models import Conversation, Message, Retrieval, Summary
from chat.rag.sources import ContextItem
from chat.services import conversations, turns
from chat.services.turn_context import TurnContext
from chat.services.turn_plan import TurnPlan, plan_turn
from chat.services.turns import Turn
from inference.config.tokenizer import Tokenizer
from tests.chat.conversing import ANN, BOB, chat, finish, generation_of, more, prompt_of, texts_of
from tests.chat.folding import (
    CONTEXT,
    conversation_of,
    follow,
    note_of,
    pieces_left,
    read_all,
    sent_history,
    summarized,
    talk,
)
from tests.chat.vocabularies import fake_tokenizer, shown

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


@pytest.fixture(autouse=True)
def _small_context(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=CONTEXT))


def message_at(turn: Turn, position: int) -> Message:
    """Negative ones from the end."""
    return list(conversation_of(turn).messages.in_order())[position]


def instead(turn: Turn, position: int, text: str | None = None, **fields: Any) -> Turn:  # noqa: ANN401
    """Ask another question, or the same again, in the place of the one at ``position``."""
    replaces = message_at(turn, position).pk
    return chat(conversation_id=turn.conversation_id, replaces=replaces, message=text, max_tokens=60, **fields)


def folded_twice() -> Turn:
    turn = summarized("The first summary.")
    number = 100
    while not pieces_left(turn):
        turn = talk(1, turn, first=number)
        follow(turn)
        number += 1
    read_all(turn, "The second summary.")
    return turn


# ---- with the ids of conversation and message ----


@pytest.mark.parametrize("named", [-1, -2])
def test_an_answer_made_again_begins_a_conversation_of_its_own(named: int) -> None:
    turn = talk(3)
    first_prompt = generation_of(turn).n_prompt_tokens
    before = texts_of(turn.conversation_id)
    again = instead(turn, named)
    assert again.conversation_id != turn.conversation_id
    assert texts_of(again.conversation_id) == [*before[:-1], ("assistant", "")]
    assert len(prompt_of(again)) == first_prompt
    finish(again, "Another answer.")
    assert texts_of(turn.conversation_id) == before, "nothing that was said is lost"
    assert texts_of(again.conversation_id)[-1] == ("assistant", "Another answer.")
    assert conversation_of(again).title == conversation_of(turn).title


def test_the_branch_begins_with_tokens_that_are_computed_already() -> None:
    turn = talk(2)
    odd = [*map(ord, "odd "), *map(ord, "tokens")]
    following = more(turn, "and then?", max_tokens=60)
    finish(following, "odd tokens", output=odd)
    third = more(following, "third", max_tokens=60)
    ids = prompt_of(third)
    finish(third)
    edited = instead(third, -2, "another third")
    n_common = len(ids) - len("third") - len(shown(ids).rpartition("third")[2])
    assert prompt_of(edited)[: n_common - 40] == ids[: n_common - 40]
    assert prompt_of(instead(third, -1)) == ids


def test_the_first_question_can_be_edited() -> None:
    turn = talk(2)
    edited = instead(turn, 0, "Something else.")
    assert texts_of(edited.conversation_id) == [("user", "Something else."), ("assistant", "")]
    assert conversation_of(edited).title == "Something else."


def test_sources_and_settings_of_the_conversation_come_along() -> None:
    turn = chat("s:be kind", "u:one", max_tokens=60, context=(ContextItem("The key is under the pot."),))
    finish(turn, "Under the pot [1].")
    conversations.update_conversation(caller=ANN, conversation_id=conversation_of(turn).pk, strategy=Strategy.ERROR)
    turn = more(turn, "two", max_tokens=60)
    finish(turn)
    again = instead(turn, -1)
    fork = conversation_of(again)
    assert (fork.strategy, fork.system_prompt) == (Strategy.ERROR, "be kind")
    assert Retrieval.objects.get(message__conversation=fork).sources[0]["text"] == "The key is under the pot."
    assert "The key is under the pot." in shown(prompt_of(again))
    assert "be kind" in shown(prompt_of(again))
    finish(again)
    assert "The key is under the pot." in shown(prompt_of(more(again, "three", max_tokens=60)))


def test_a_branch_has_the_newest_summary_that_covers_none_but_its_own_messages() -> None:
    turn = folded_twice()
    first, second = Summary.objects.order_by("version")
    assert first.covers_until < second.covers_until
    late = instead(turn, -1)
    kept = Summary.objects.get(conversation=conversation_of(late))
    assert (kept.version, kept.text, kept.covers_until) == (2, "The second summary.", second.covers_until)
    assert "> The second summary." in shown(prompt_of(late))
    assert note_of(late)["summary_version"] == 2
    # Within the range of the second summary, which covers messages that this branch lacks.
    middle = instead(turn, first.covers_until + 3)
    assert "The second summary" not in shown(prompt_of(middle))
    assert "> The first summary." in shown(prompt_of(middle))
    assert conversation_of(middle).summary == "The first summary."
    early = instead(turn, first.covers_until)
    assert "summary." not in shown(prompt_of(early))
    assert conversation_of(early).summary == ""
    assert Summary.objects.filter(conversation=conversation_of(early)).count() == 0
    for fork in (late, middle, early):
        summary = Summary.objects.filter(conversation=conversation_of(fork)).first()
        n_before = conversation_of(fork).messages.count() - 2
        assert summary is None or summary.covers_until < n_before
        assert message_at(fork, 0).text.startswith("question 0 ")


def test_a_branch_is_folded_by_itself() -> None:
    turn = folded_twice()
    fork = instead(turn, Summary.objects.get(version=1).covers_until + 2, "question of the branch")
    finish(fork, "w" * 150)
    number = 200
    while not pieces_left(fork):
        fork = talk(1, fork, first=number)
        follow(fork)
        number += 1
    read_all(fork, "Of the branch.")
    made = list(Summary.objects.filter(conversation=conversation_of(fork)).order_by("version"))
    assert [each.text for each in made] == ["The first summary.", "Of the branch."]
    assert conversation_of(turn).summary == "The second summary."


def test_turns_after_a_branch_go_on_in_it() -> None:
    turn = talk(2)
    again = instead(turn, -1)
    finish(again, "New.")
    following = more(again, "next", max_tokens=60)
    assert following.conversation_id == again.conversation_id
    assert shown(prompt_of(following)).count("New.") == 1
    assert "answer 1 " not in shown(prompt_of(following))


def test_an_edited_question_of_a_running_answer_does_not_wait_for_it() -> None:
    turn = talk(1)
    running = more(turn, "first try", max_tokens=60)
    edited = instead(running, -2, "second try")
    assert "first try" not in shown(prompt_of(edited))
    assert texts_of(running.conversation_id)[-2:] == [("user", "first try"), ("assistant", "")]


def test_what_is_not_stored_can_be_asked_again() -> None:
    turn = summarized("They talked.")
    n_rows = (Conversation.objects.count(), Message.objects.count(), Summary.objects.count())
    again = instead(turn, -1, store=False)
    assert "> They talked." in shown(prompt_of(again))
    assert again.conversation_id is None
    assert (Conversation.objects.count(), Message.objects.count(), Summary.objects.count()) == n_rows


@pytest.mark.parametrize("store", [True, False])
def test_a_search_before_the_answer_sees_the_branch_alone(*, store: bool) -> None:
    turn = talk(3)
    fork = instead(turn, 2, "edited", use_rag=True, store=store)
    turns.prepare_turn(generation_id=fork.generation_id)
    prompt = shown(prompt_of(fork))
    assert "question 0 " in prompt
    assert "edited" in prompt
    assert "question 1 " not in prompt
    assert "question 2 " not in prompt


def test_a_long_message_that_was_read_is_not_read_again() -> None:
    turn = talk(1)
    question = message_at(turn, 0)
    Message.objects.filter(pk=question.pk).update(condensed="its notes")
    again = instead(turn, 0)
    assert message_at(again, 0).condensed == "its notes"
    assert "its notes" in shown(prompt_of(again))
    assert message_at(instead(turn, 0, "shorter"), 0).condensed == ""


def test_nobody_branches_off_from_what_is_not_his() -> None:
    turn, other = talk(1), talk(1, first=5)
    named = message_at(turn, 0).pk
    with pytest.raises(NotFound) as caught:
        chat(conversation_id=turn.conversation_id, replaces=named, caller=BOB)
    assert caught.value.field == "conversation_id"
    for unknown in (message_at(other, 0).pk, uuid.uuid4()):
        with pytest.raises(NotFound) as caught:
            chat(conversation_id=turn.conversation_id, replaces=unknown)
        assert caught.value.field == "replaces"
    with pytest.raises(InvalidRequest, match="needs the conversation_id"):
        chat("u:hello", replaces=named)
    assert Conversation.objects.count() == 2


def test_an_answer_to_nothing_cannot_be_made_again() -> None:
    turn = chat("a:I greet you.", "u:hello", max_tokens=60)
    finish(turn)
    with pytest.raises(InvalidRequest, match="there is no question before"):
        instead(turn, 0)
    running = more(turn, "one", max_tokens=60)
    Message.objects.create(conversation=conversation_of(running), position=9, role="user", content="out of turn")
    with pytest.raises(ConversationBusy):
        instead(running, -1)


# ---- by text: clients without ids send everything again ----


@pytest.mark.parametrize("edited", [False, True])
def test_a_sent_history_that_takes_another_way_has_the_summary_of_the_common_one(*, edited: bool) -> None:
    turn = summarized("They talked.")
    turn = talk(3, turn, first=70)
    before = texts_of(turn.conversation_id)
    *earlier, last = sent_history(turn, drop=1)
    fork = chat(*earlier, "u:something else" if edited else last, max_tokens=60)
    assert fork.conversation_id != turn.conversation_id
    assert "> They talked." in shown(prompt_of(fork))
    assert note_of(fork)["messages_left_out"] == 0
    assert texts_of(turn.conversation_id) == before
    finish(fork, "Well.")
    follow(fork)
    read_all(fork, "The branch.")
    assert conversation_of(turn).summary == "They talked."
    # The client goes on with it by its texts.
    assert chat(*sent_history(fork), "u:more", max_tokens=60).conversation_id == fork.conversation_id


@pytest.mark.parametrize(("at", "what"), [(2, "u:edited question"), (3, "a:edited answer"), (0, "u:another beginning")])
def test_a_history_that_was_edited_within_the_summary_does_not_have_it(at: int, what: str) -> None:
    turn = summarized("They talked.")
    history = sent_history(turn)
    history[at] = what
    fork = chat(*history, "u:and now?", max_tokens=60)
    assert "They talked" not in shown(prompt_of(fork))
    assert conversation_of(fork).summary == ""
    assert texts_of(fork.conversation_id)[at][1] == what[2:]
    prompt = shown(prompt_of(fork))
    n_shown = sum(text[2:] in prompt for text in history)
    assert n_shown + int(str(note_of(fork).get("messages_left_out", 0))) >= len(history), "nothing goes silently"


def test_of_several_the_one_with_most_in_common_counts() -> None:
    turn = talk(3)
    other = instead(turn, 2, "question of the other")
    finish(other, "answer of the other")
    other = talk(1, other, first=9)
    history = sent_history(other, drop=2)
    fork = chat(*history, "u:question 9 again", max_tokens=60)
    keys = {message.rendered_with for message in conversation_of(fork).messages.filter(role="assistant")}
    assert len(keys) == 1, "all answers before are copies with their tokens"
    assert "question of the other" in shown(prompt_of(fork))
    assert "question 2 " not in shown(prompt_of(fork))


def test_what_others_said_alike_is_not_taken_from_them() -> None:
    turn = summarized("Ann's summary.")
    fork = chat(*sent_history(turn, drop=1)[:-1], "u:something else", caller=BOB, max_tokens=60)
    assert "Ann's summary" not in shown(prompt_of(fork))
    assert conversation_of(fork).owner == BOB.key
    assert not Summary.objects.filter(conversation=conversation_of(fork)).exists()


def test_a_conversation_deleted_meanwhile_leaves_nothing_in_the_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = summarized("They talked.")
    history = sent_history(turn, drop=1)[:-1]
    conversation = conversation_of(turn)

    def slow_plan(context: TurnContext) -> TurnPlan:
        plan = plan_turn(context)
        if Conversation.objects.filter(pk=conversation.pk).exists():
            conversations.delete_conversation(caller=ANN, conversation_id=conversation.pk)
        return plan

    monkeypatch.setattr("chat.services.turns.plan_turn", slow_plan)
    fork = chat(*history, "u:something else", max_tokens=60)
    assert "They talked" not in shown(prompt_of(fork))
    assert not Summary.objects.exists()
    assert [text for _, text in texts_of(fork.conversation_id)][:-2] == [text[2:] for text in history]


def test_a_long_sent_history_costs_few_queries() -> None:
    turn = talk(10)
    history = sent_history(turn)
    history[1] = "a:edited"
    with CaptureQueriesContext(
        connection,
    ) as queries:
        chat(*history, "u:and now?", max_tokens=60)
    assert len(queries) < 30, [query["sql"][:80] for query in queries]

"""Deletion of responses: positions, summaries and branches made afterwards, and turns that are begun meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest

from chat.models import Conversation, Message, Summary
from chat.services.responses.deletion import delete_response
from chat.services.turn_context import TurnContext
from chat.services.turn_plan import TurnPlan, plan_turn
from chat.services.turns import Turn
from chat.summarization import rolling
from inference.config.tokenizer import Tokenizer
from inference.models import Generation
from tests.chat.conversing import ANN, chat, finish, generation_of, prompt_of, texts_of
from tests.chat.folding import (
    CONTEXT,
    being_made,
    conversation_of,
    follow,
    pieces_left,
    read_all,
    read_piece,
    talk,
)
from tests.chat.vocabularies import fake_tokenizer, shown

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

RESPONSE: dict[str, Any] = {"background": False}


@pytest.fixture(autouse=True)
def _small_context(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=CONTEXT))


def delete_turn(turn: Turn, number: int) -> None:
    """Delete the response to question ``number``."""
    rows = conversation_of(turn).messages
    question = rows.get(content__startswith=f"question {number} ")
    answer = rows.get(position=question.position + 1)
    assert answer.generation is not None
    delete_response(caller=ANN, generation=answer.generation)


def positions_of(turn: Turn) -> list[int]:
    return list(conversation_of(turn).messages.in_order().values_list("position", flat=True))


def talk_with_a_deletion(n_turns: int = 4, *, deleted: int = 1) -> Turn:
    turn = talk(n_turns, response=RESPONSE)
    delete_turn(turn, deleted)
    return turn


def begin_summary(turn: Turn, *, first: int) -> Turn:
    for number in range(first, 60):
        turn = talk(1, turn, first=number, response=RESPONSE)
        follow(turn)
        if pieces_left(turn):
            return turn
    raise AssertionError("no summary was due")


@pytest.mark.parametrize("deleted", [0, 1, 2, 3])
def test_positions_count_on_from_0(deleted: int) -> None:
    turn = talk_with_a_deletion(deleted=deleted)
    assert positions_of(turn) == list(range(6))
    following = talk(1, turn, first=9, response=RESPONSE)
    assert positions_of(following) == list(range(8))
    questions = [text.rstrip("u") for role, text in texts_of(turn.conversation_id) if role == "user"]
    assert questions == [f"question {n} " for n in (0, 1, 2, 3, 9) if n != deleted]


def test_positions_after_responses_with_several_input_messages() -> None:
    first = chat("u:one", "a:two", "u:three", response=RESPONSE)
    finish(first)
    options: dict[str, Any] = {"response": RESPONSE, "appends": True}
    second = chat("u:four", "u:five", follows=first.generation_id, **options)
    finish(second)
    third = chat("u:six", follows=second.generation_id, **options)
    finish(third)
    delete_response(caller=ANN, generation=generation_of(second))
    assert [text for _, text in texts_of(first.conversation_id)] == ["one", "two", "three", "Fine.", "six", "Fine."]
    assert positions_of(first) == list(range(6))
    delete_response(caller=ANN, generation=generation_of(first))
    assert positions_of(first) == [0, 1]


def test_a_later_summary_has_every_message_that_it_covers() -> None:
    turn = begin_summary(talk_with_a_deletion(), first=10)
    n_covered = being_made(turn).covers_until + 1
    covered = [text for _, text in texts_of(turn.conversation_id)][:n_covered]
    prompts = ""
    while pieces_left(turn):
        generation = being_made(turn).generation
        assert generation is not None
        prompts += shown(generation.prompt_ids)
        read_piece(turn, "minutes")
    assert [text[:12] for text in covered if text[:12] not in prompts] == []


def test_a_later_summary_goes_with_the_last_response_that_it_covers() -> None:
    turn = begin_summary(talk_with_a_deletion(), first=10)
    read_all(turn)
    summary = Summary.objects.get()
    last_covered = conversation_of(turn).messages.in_order()[summary.covers_until]
    assert last_covered.generation is not None
    delete_response(caller=ANN, generation=last_covered.generation)
    assert not Summary.objects.exists()
    assert conversation_of(turn).summary == ""


def test_a_branch_before_the_end_of_a_later_summary_does_not_inherit_it() -> None:
    turn = begin_summary(talk_with_a_deletion(), first=10)
    read_all(turn, "The summary.")
    summary = Summary.objects.get()
    rows = list(conversation_of(turn).messages.in_order())
    last_covered = rows[summary.covers_until]
    for question, inherits in ((rows[summary.covers_until - 1], False), (rows[summary.covers_until + 1], True)):
        assert question.role == "user"
        assert (question.position <= last_covered.position) is not inherits
        branch = chat(conversation_id=turn.conversation_id, replaces=question.pk, message="another", max_tokens=60)
        assert ("The summary." in shown(prompt_of(branch))) is inherits


def plan_while(deletes: Callable[[], None]) -> Callable[[TurnContext], TurnPlan]:
    """A plan of a turn during which, the first time, ``deletes`` runs."""
    pending = [deletes]

    def slow_plan(context: TurnContext) -> TurnPlan:
        plan = plan_turn(context)
        if pending:
            pending.pop()()
        return plan

    return slow_plan


@pytest.mark.parametrize("kind", ["branch of it", "branch after it", "unstored", "continued"])
def test_a_turn_begun_before_a_deletion_has_nothing_of_it(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    turn = talk(4, response=RESPONSE)
    last = conversation_of(turn).messages.in_order()[6]
    third = conversation_of(turn).messages.in_order()[5].generation
    assert third is not None
    monkeypatch.setattr("chat.services.turns.plan_turn", plan_while(lambda: delete_turn(turn, 1)))
    options: dict[str, Any] = {"max_tokens": 60}
    match kind:
        case "branch of it":
            branch = chat(conversation_id=turn.conversation_id, replaces=last.pk, message="another", **options)
        case "branch after it":
            branch = chat("u:another", follows=third.pk, appends=True, **options)
        case "unstored":
            branch = chat(conversation_id=turn.conversation_id, message="another", store=False, **options)
        case _:
            branch = chat(conversation_id=turn.conversation_id, message="another", **options)
    texts = [text for _, text in texts_of(branch.conversation_id)]
    assert "question 1 " not in shown(prompt_of(branch))
    assert not [text for text in texts if text.startswith(("question 1 ", "answer 1 "))]


def test_a_turn_is_not_confused_by_as_many_new_messages_as_were_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = talk(3, response=RESPONSE)

    def delete_and_go_on() -> None:
        delete_turn(turn, 2)
        talk(1, turn, first=7)

    monkeypatch.setattr("chat.services.turns.plan_turn", plan_while(delete_and_go_on))
    following = chat(conversation_id=turn.conversation_id, message="and now?", max_tokens=60)
    prompt = shown(prompt_of(following))
    assert "question 2 " not in prompt
    assert "question 7 " in prompt


def test_a_summary_due_before_a_deletion_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = talk(1, response=RESPONSE)
    due = rolling._due

    def slow_due(conversation: Conversation, max_tokens: int) -> rolling.PendingSummary | None:
        pending = due(conversation, max_tokens)
        if pending:
            delete_turn(turn, 0)
        return pending

    monkeypatch.setattr(rolling, "_due", slow_due)
    for number in range(1, 40):
        turn = talk(1, turn, first=number, response=RESPONSE)
        follow(turn)
        if "question 0 " not in str(texts_of(turn.conversation_id)):
            break
    assert not Summary.objects.exists()
    waiting = Generation.objects.exclude(prompt=b"").exclude(status="complete")
    assert not [row for row in waiting if "question 0 " in shown(row.prompt_ids)]


def test_a_long_input_is_deleted_without_comparing_each_message_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    n_messages, n_compared, equal = 400, [0], Message.__eq__
    texts = [f"{'ua'[number % 2]}:{number}" for number in range(n_messages)]
    first = chat(*texts, "u:first", response=RESPONSE)
    finish(first)
    second = chat("u:second", follows=first.generation_id, appends=True, response=RESPONSE)
    finish(second)

    def counted(message: Message, other: object) -> bool:
        n_compared[0] += 1
        return bool(equal(message, other))

    monkeypatch.setattr(Message, "__eq__", counted)
    delete_response(caller=ANN, generation=generation_of(first))
    assert n_compared[0] < 10 * n_messages
    assert [text for _, text in texts_of(first.conversation_id)] == ["second", "Fine."]

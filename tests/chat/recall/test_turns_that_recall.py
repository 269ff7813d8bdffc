"""Turns of long conversations: what is recalled beside the question, and what is not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chat.enums import Strategy
from chat.models import Conversation, Message, MessagePassage, Role, Summary
from chat.prompting.recalled import HEADS
from chat.rag.sources import ContextItem
from chat.rag.vectors import embedding
from chat.recall import vectors
from chat.schemas.answers import message_body
from chat.services import conversations, turn_recall, turns
from chat.services.responses.deletion import delete_response
from chat.services.turns import Turn
from chat.summarization import rolling
from inference.config.tokenizer import Tokenizer
from inference.models import Status
from tests.chat.conversing import ANN, BOB, chat, finish, generation_of, more, prompt_of
from tests.chat.folding import CONTEXT, conversation_of, note_of, sent_history, talk
from tests.chat.vocabularies import CHATML_TEMPLATE, fake_tokenizer, shown

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

FACT = "My dentist is Dr. Osei on Maple Street."
QUESTION = "What is the name of my dentist?"
REQUEST_BYTES = 1_048_576  # REQUEST_MAX_BYTES


@pytest.fixture(autouse=True)
def _small_context(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=CONTEXT))


def told(fact: str = FACT, *, n_turns: int = 24, **fields: Any) -> Turn:  # noqa: ANN401
    """A conversation in which the user stated a fact that has left the prompt."""
    turn = talk(1, **fields)
    turn = more(turn, fact, max_tokens=60, **fields)
    finish(turn, "I see.")
    return talk(n_turns, turn, first=2, **fields)


def asked(turn: Turn, question: str = QUESTION, **fields: Any) -> Turn:  # noqa: ANN401
    return more(turn, question, max_tokens=60, **fields)


def text_of(turn: Turn) -> str:
    return shown(prompt_of(turn))


def recalled(turn: Turn) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = note_of(turn).get("recalled", [])  # type: ignore[assignment]
    return rows


def test_a_fact_that_left_the_prompt_stands_beside_the_question() -> None:
    following = asked(told())
    text = text_of(following)
    assert text.index(HEADS[Role.USER]) < text.index(FACT)
    assert text.index(FACT) < text.index(QUESTION)
    assert text.count(FACT) == 1
    (passage,) = [row for row in recalled(following) if row["position"] == 2]
    assert (passage["role"], passage["score"] > 0, passage["words"] > 0, passage["similarity"]) == ("user", 1, 1, None)
    assert len(prompt_of(following)) <= CONTEXT - 60


@pytest.mark.parametrize(("n_later", "is_recalled"), [(0, False), (2, False), (3, True), (6, True)])
def test_of_a_prompt_that_lacks_turns_what_is_not_near_the_question_stands_beside_it(
    n_later: int, *, is_recalled: bool
) -> None:
    turn = more(talk(24), FACT, max_tokens=60)
    finish(turn, "I see.")
    turn = asked(talk(n_later, turn, first=30) if n_later else turn)
    assert note_of(turn)["messages_left_out"]
    assert text_of(turn).count(FACT) == 1 + is_recalled, "the prompt shows it in any case"


def test_of_a_prompt_that_lacks_turns_no_other_question_is_taken_for_the_last_one() -> None:
    following = asked(told(), "What was my last question?")
    assert note_of(following)["messages_left_out"]
    assert recalled(following) == []


def test_the_api_says_what_was_recalled_and_why() -> None:
    following = asked(told())
    finish(following, "Dr. Osei.")
    row = Message.objects.in_order().get(generation=following.generation_id)
    history = message_body(row)["usage"]["history"]
    assert history["messages_left_out"] > 0
    assert history["recalled"][0].keys() == {"position", "role", "said_at", "score", "similarity", "words"}


def test_while_everything_fits_nothing_is_searched_and_no_passage_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("rewrite_query", "said_passages", "copied_passages", "new_passages"):
        monkeypatch.setattr(turn_recall, name, lambda *_, name=name, **__: calls.append(name))
    turn = talk(3)
    assert "messages_left_out" not in note_of(asked(turn))
    assert calls == []


def test_letters_that_are_alike_without_regard_to_case_name_no_time() -> None:
    turn = told()
    for when in ("5 m\u0130n ago", "vor 5 \u017ftunden", "hace 5 m\u0130nutos"):
        question = f"{QUESTION} I said it {when}."
        following = asked(turn, question)
        assert question in text_of(following)
        assert FACT in text_of(following)
        finish(following, "Osei.")


def test_the_next_prompt_begins_with_all_before_the_recalled_question() -> None:
    following = asked(told())
    ids = prompt_of(following)
    finish(following, "Dr. Osei.")
    later = asked(following, "Thanks!")
    again = prompt_of(later)
    text, later_text = shown(ids), shown(again)
    start = text.index(HEADS[Role.USER])
    assert later_text.startswith(text[:start] + QUESTION)
    assert FACT not in later_text
    assert "recalled" not in note_of(later)


def test_the_prefix_stays_the_same_over_turns_that_recall() -> None:
    turn = told()
    n_new = 0
    before = ""
    for number in range(12):
        turn = asked(turn, f"What is the name of my dentist, {number}?")
        text = text_of(turn)
        common = text.partition(HEADS[Role.USER])[0]
        n_new += bool(before) and not text.startswith(before)
        before = common
        finish(turn, "Dr. Osei.")
    assert n_new <= 3, "turns are left out a few at a time"


@pytest.mark.parametrize("strategy", [Strategy.TRUNCATE, Strategy.ERROR])
def test_other_strategies_recall_nothing(strategy: Strategy) -> None:
    turn = told(n_turns=24, strategy=Strategy.TRUNCATE)
    if strategy is Strategy.ERROR:
        turn = told(n_turns=3)
    following = asked(turn, strategy=strategy)
    assert "recalled" not in (note_of(following) or {})
    assert HEADS[Role.USER] not in text_of(following)
    assert strategy is Strategy.ERROR or FACT not in text_of(following)


def test_a_request_and_a_conversation_can_switch_it_off() -> None:
    turn = told()
    following = asked(turn, recall=False)
    assert FACT not in text_of(following)
    finish(following, "?")
    conversations.update_conversation(caller=ANN, conversation_id=conversation_of(turn).pk, recall=False)
    following = asked(following)
    assert FACT not in text_of(following)
    finish(following, "?")
    assert FACT in text_of(asked(following, recall=True))


def test_another_conversation_is_never_searched() -> None:
    told()
    other = told("My dog is called Rex.")
    assert FACT not in text_of(asked(other))
    foreign = chat("u:Hello", caller=BOB, max_tokens=60)
    finish(foreign, "Hi.")
    for number in range(26):
        foreign = chat(
            conversation_id=foreign.conversation_id, message=f"{number} ".ljust(150, "w"), caller=BOB, max_tokens=60
        )
        finish(foreign, "v" * 150)
    question = chat(conversation_id=foreign.conversation_id, message=QUESTION, caller=BOB, max_tokens=60)
    assert note_of(question)["messages_left_out"]
    assert "Osei" not in text_of(question)


def test_a_branch_has_no_message_of_the_other_one() -> None:
    turn = talk(1)
    other = more(turn, "My dentist is Dr. Wrong in Oslo.", max_tokens=60)
    finish(other, "I see.")
    talk(24, other, first=2)
    message = conversation_of(turn).messages.get(position=2)
    branch = chat(conversation_id=turn.conversation_id, message=FACT, replaces=message.pk, max_tokens=60)
    assert branch.conversation_id != turn.conversation_id
    finish(branch, "I see.")
    branch = talk(24, branch, first=2)
    text = text_of(asked(branch))
    assert FACT in text
    assert "Wrong" not in text


@pytest.mark.usefixtures("encoder")
def test_a_branch_takes_the_passages_and_vectors_of_what_it_shares() -> None:
    turn = told()
    vectors.embed_all()
    last = conversation_of(turn).messages.order_by("-position")[1]
    question = "Who looks after these teeth?"
    branch = chat(conversation_id=turn.conversation_id, message=question, replaces=last.pk, max_tokens=60)
    rows = MessagePassage.objects.filter(message__conversation=branch.conversation_id)
    assert conversation_of(branch).n_indexed == last.position + 1
    assert rows.exclude(encoding="").count() >= last.position - 2
    assert [row.message.text[row.start : row.end] for row in rows.filter(message__position=2)] == [FACT]
    assert FACT in text_of(branch)


def test_a_sent_history_is_searched_too_and_nothing_is_stored_of_it() -> None:
    turn = told()
    history = sent_history(turn)
    MessagePassage.objects.all().delete()
    Conversation.objects.all().delete()
    following = chat(*history, f"u:{QUESTION}", max_tokens=60, store=False)
    assert FACT in text_of(following)
    assert not MessagePassage.objects.exists()


@pytest.mark.parametrize("n_bytes", [220_000, pytest.param(REQUEST_BYTES - 2_000, marks=pytest.mark.slow)])
def test_of_a_very_long_message_among_short_ones_the_part_that_matters_is_recalled(n_bytes: int) -> None:
    sentence = "The weather was fine and nothing happened on that day. "
    filler = sentence * ((n_bytes - len(FACT)) // (2 * len(sentence)))
    long = f"{filler}\n\n{FACT}\n\n{filler}"
    short = [text for number in range(4) for text in (f"u:question {number}", f"a:answer {number}")]
    turn = chat(*short, f"u:{long}", "a:I see.", *short, f"u:{QUESTION}", max_tokens=60)
    assert note_of(turn)["messages_left_out"]
    text = text_of(turn)
    assert FACT in text
    assert len(prompt_of(turn)) <= CONTEXT - 60
    (passage,) = recalled(turn)
    assert passage["position"] == 8


@pytest.mark.slow
def test_a_conversation_of_3_000_turns_goes_on() -> None:
    texts = [
        text for number in range(3_000) for text in (f"u:Item {number} costs {number} euros.", f"a:Yes, {number}.")
    ]
    turn = chat(*texts, "u:What does item 1234 cost?", max_tokens=60)
    assert note_of(turn)["messages_left_out"] > 5_000  # type: ignore[operator]
    assert "> Item 1234 costs 1234 euros." in text_of(turn)
    finish(turn, "1234 euros.")
    rolling.after_answer(turn.generation_id)
    summary = Summary.objects.get()
    assert summary.covers_until < 5_000, "the oldest turns first, and used while the rest is read"
    following = asked(turn, "And what does item 77 cost?")
    assert "> Item 77 costs 77 euros." in text_of(following)


def test_a_conversation_of_equal_messages_goes_on() -> None:
    turn = chat(f"u:{'same '.ljust(150, 'u')}", max_tokens=60)
    for _ in range(26):
        finish(turn, "v" * 150)
        turn = more(turn, "same ".ljust(150, "u"), max_tokens=60)
    assert note_of(turn)["messages_left_out"]
    assert len(recalled(turn)) <= 1
    assert len(prompt_of(turn)) <= CONTEXT - 60


def test_a_turn_with_documents_recalls_as_well() -> None:
    following = asked(told(), context=(ContextItem(text="The office opens at nine."),))
    text = text_of(following)
    assert text.index("The office opens at nine.") > text.index(FACT)
    assert len(prompt_of(following)) <= CONTEXT - 60


def test_a_turn_that_waits_for_memories_recalls_once_it_has_them() -> None:
    following = asked(told(), use_rag=True)
    assert generation_of(following).status == Status.PREPARING
    turns.prepare_turn(generation_id=following.generation_id)
    assert FACT in text_of(following)
    assert recalled(following)


def test_a_question_about_an_unstored_turn_recalls_from_the_stored_conversation() -> None:
    turn = told()
    following = asked(turn, store=False)
    assert FACT in text_of(following)
    assert conversation_of(turn).messages.count() == 52


def test_a_deleted_response_is_not_recalled() -> None:
    turn = told()
    n_before = conversation_of(turn).n_indexed
    answer = conversation_of(turn).messages.select_related("generation").get(position=3)
    assert answer.generation is not None
    answer.generation.details["response"] = {"n_input": 1}
    answer.generation.save()
    delete_response(caller=ANN, generation=answer.generation)
    assert (n_before > 0, conversation_of(turn).n_indexed) == (True, 0)
    assert not MessagePassage.objects.exists()
    following = asked(turn)
    assert "Osei" not in text_of(following)
    rows = MessagePassage.objects.filter(message__conversation=turn.conversation_id)
    assert rows.exists()
    assert all(row.message.text[row.start : row.end] for row in rows)


def test_a_format_that_is_rendered_whole_recalls(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=CONTEXT, template=CHATML_TEMPLATE))
    assert text_of(asked(told())).count(FACT) == 1


def test_passages_are_stored_before_their_turns_leave_the_prompt_and_once() -> None:
    turn = talk(1)
    turn = more(turn, FACT, max_tokens=60)
    finish(turn, "I see.")
    assert not MessagePassage.objects.exists()
    while not MessagePassage.objects.exists():
        turn = talk(1, turn, first=9)
    assert not note_of(turn)
    turn = talk(4, turn, first=10)
    n_indexed = conversation_of(turn).n_indexed
    assert n_indexed == conversation_of(turn).messages.count() - 1, "all but the answer"
    assert MessagePassage.objects.filter(message__content=FACT).count() == 1


def test_deleting_the_conversation_deletes_its_passages() -> None:
    turn = told()
    assert MessagePassage.objects.exists()
    conversations.delete_conversation(caller=ANN, conversation_id=conversation_of(turn).pk)
    assert not MessagePassage.objects.exists()


class Encoder:
    """Vectors by one letter, so that texts without a common word can be alike."""

    calls = 0

    def passages(self, inputs: list[embedding.EncoderInput], encoding: str) -> embedding.Vectors:
        self.calls += 1
        return np.array([self.vector(item.text) for item in inputs], np.float32)

    def vector(self, text: str) -> embedding.Vectors:
        vector = np.zeros(embedding.DIMENSIONS, np.float32)
        vector[0 if "Osei" in text or "teeth" in text else 1] = 1.0
        return vector


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    made = Encoder()
    monkeypatch.setattr(embedding, "unavailable_reason", lambda encoding="": "")
    monkeypatch.setattr(embedding, "embed_passages_single_threaded", made.passages)
    monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: made.vector(text))
    monkeypatch.setattr(embedding, "similarities", lambda cosines, question, encoding: cosines)
    return made


def test_with_vectors_other_words_find_it(encoder: Encoder) -> None:
    turn = told()
    following = asked(turn, "Who looks after these teeth?")
    assert FACT not in text_of(following)
    assert "by words alone" in str(note_of(following)["recall_problem"])
    finish(following, "?")
    vectors.embed_all()
    assert not MessagePassage.objects.filter(encoding="").exists()
    following = asked(following, "Who looks after these teeth, please?")
    assert FACT in text_of(following)
    (passage,) = [row for row in recalled(following) if row["position"] == 2]
    assert passage["similarity"] == pytest.approx(1.0, abs=0.01)


def test_vectors_of_another_encoding_are_not_compared_and_are_made_anew(encoder: Encoder) -> None:
    turn = told()
    MessagePassage.objects.update(embedding=encoder.vector("teeth").astype("<f2").tobytes(), encoding="old/1")
    following = asked(turn, "Who looks after these teeth?")
    assert "recalled" not in note_of(following)
    vectors.discard_outdated(embedding.target_encoding())
    assert MessagePassage.objects.filter(encoding="", embedding=b"").count() == MessagePassage.objects.count()
    vectors.embed_all()
    finish(following, "?")
    assert FACT in text_of(asked(following, "Who looks after these teeth, please?"))


def test_without_an_encoder_passages_stay_on_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = told()
    monkeypatch.setattr(embedding, "unavailable_reason", lambda encoding="": "the embedding model cannot be read")
    vectors.embed_all()
    assert MessagePassage.objects.filter(encoding="").count() == MessagePassage.objects.count() > 0
    assert FACT in text_of(asked(turn))


def test_every_message_is_in_the_prompt_or_found_by_its_words() -> None:
    turn = talk(1)
    for number in range(30):
        turn = more(turn, f"The code of room{number} is {1000 + 7 * number}.".ljust(120, "."), max_tokens=60)
        finish(turn, "v" * 150)
    for number in range(30):
        following = asked(turn, f"Which code has room{number}?")
        assert f"The code of room{number} is {1000 + 7 * number}." in text_of(following), number
        finish(following, "?")


def test_a_generation_of_a_recalling_turn_keeps_its_number_of_tokens() -> None:
    following = asked(told())
    generation = generation_of(following)
    assert generation.n_prompt_tokens == len(generation.prompt_ids)

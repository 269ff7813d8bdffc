"""Search queries of follow-up questions: pronouns, joined and empty questions in both languages."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat.models import Role
from chat.prompting.message_groups import DialogueMessage
from chat.rag.sources import SEGMENT, Source
from chat.services.questions.query_rewriting import EarlierQuestion, earlier_questions, rewrite_query

SARAH = EarlierQuestion(
    question="What did Sarah say about the deadline?", cited=("Sarah",), all_speakers=("Tom", "Sarah")
)
FRIST = EarlierQuestion(question="Was hat Sarah über die Frist gesagt?", cited=("Sarah",), all_speakers=("Sarah",))
CITED = EarlierQuestion(
    question="Who was worried about the deadline?", cited=("Priya Nair",), all_speakers=("Tom", "Priya Nair")
)
SERVER = EarlierQuestion(question="When was the server moved?")


@pytest.mark.parametrize(
    ("earlier", "question", "text"),
    [
        (SARAH, "And what did she say about the budget?", "And what did Sarah say about the budget?"),
        (SARAH, "and about the budget?", "and about the budget? Sarah"),
        (SARAH, "What was her opinion of Berlin?", "What was Sarah opinion of Berlin?"),
        (CITED, "What did she propose instead?", "What did Priya Nair propose instead?"),
        (FRIST, "Und was hat sie zum Budget gesagt?", "Und was hat Sarah zum Budget gesagt?"),
        (FRIST, "und zum Budget?", "und zum Budget? Sarah"),
        (SARAH, "why?", "What did Sarah say about the deadline? why?"),
        (SARAH, "When was that?", "What did Sarah say about the deadline? When was that?"),
        (SARAH, "What did she say?", "What did Sarah say about the deadline? What did she say?"),
        (FRIST, "und wann war das?", "Was hat Sarah über die Frist gesagt? und wann war das?"),
        (FRIST, "Warum?", "Was hat Sarah über die Frist gesagt? Warum?"),
        (SERVER, "How long did it take?", "When was the server moved? How long did it take?"),
        (SERVER, "and the printer?", "When was the server moved? and the printer?"),
        (
            SERVER,
            "what did they say about the printer?",
            "When was the server moved? what did they say about the printer?",
        ),
        (SERVER, "and last month?", "When was the server moved? and last month?"),
    ],
)
def test_a_follow_up_is_searched_with_what_it_refers_to(earlier: EarlierQuestion, question: str, text: str) -> None:
    assert rewrite_query(question, [earlier]).text == text
    assert rewrite_query(question, [earlier]).refers_to
    assert rewrite_query(question, []).text == question


@pytest.mark.parametrize(
    "question",
    [
        "What did Tom promise for the launch in Berlin?",
        "Wie hoch ist das Budget für den Umzug?",
        "Können Sie mir sagen, wann der Umzug ist?",
        "Is it true that the office in Berlin moved?",
        "What did Sarah think of her flight?",
        "Summarize: " + "she said that. " * 30,
    ],
)
def test_a_question_that_stands_alone_is_searched_as_it_is(question: str) -> None:
    assert rewrite_query(question, [SARAH]).text == question
    assert rewrite_query(question, [SARAH]).refers_to == ""


def test_a_chain_goes_back_to_where_it_began() -> None:
    chain = [
        SARAH,
        EarlierQuestion(question="why?"),
        EarlierQuestion(question="and what did she say about the budget?", all_speakers=("Tom",)),
    ]
    assert rewrite_query("When was that?", chain).text == "and what did Sarah say about the budget? When was that?"
    long = [SARAH, *[EarlierQuestion(question="why?")] * 50]
    assert len(rewrite_query("why?", long).text) < 250


def test_another_time_takes_the_place_of_the_first() -> None:
    earlier = EarlierQuestion(question="What did we decide last week about the move?")
    assert rewrite_query("and yesterday?", [earlier]).text == "What did we decide about the move? and yesterday?"


def test_several_people_are_meant_by_they() -> None:
    earlier = EarlierQuestion(question="Who was late?", cited=("Tom", "Ana"), all_speakers=("Tom", "Ana", "Sarah"))
    assert rewrite_query("What did they promise?", [earlier]).text == "What did Tom Ana promise?"
    assert rewrite_query("What did he promise?", [earlier]).text == "What did Tom promise?"


def test_earlier_questions_know_whom_their_answers_cited() -> None:
    shown = tuple(
        Source(kind=SEGMENT, text="x", speaker=name, label=str(i)) for i, name in enumerate(["A", "", "B"], 1)
    )
    dialogue = [
        DialogueMessage(Role.USER, "who?", None, shown),
        DialogueMessage(Role.ASSISTANT, "It was B [3]."),
        DialogueMessage(Role.USER, "why?"),
    ]
    assert earlier_questions(dialogue) == [EarlierQuestion(question="who?", cited=("B",), all_speakers=("A", "B"))]
    assert earlier_questions(dialogue[:1]) == earlier_questions([]) == []


@example(" ", [EarlierQuestion(question="")])
@given(st.text(max_size=250), st.lists(st.builds(EarlierQuestion, question=st.text(max_size=250)), max_size=8))
def test_any_words_give_a_text_of_bounded_size(question: str, earlier: list[EarlierQuestion]) -> None:
    found = rewrite_query(question, earlier)
    assert question.strip() in found.text or found.refers_to
    assert len(found.text) <= len(question) + 400

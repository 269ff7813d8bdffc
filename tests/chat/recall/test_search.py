"""The search of earlier messages: by words alone, without a database."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from chat.models import Message, Role
from chat.prompting.message_groups import DialogueMessage
from chat.prompting.recalled import Recall
from chat.rag.vectors import embedding
from chat.recall.passages import parts_made_once, said_passages, spans
from chat.recall.search import MAX_FOUND, MAX_UNSURE, search

REQUEST_MAX_BYTES = 1_048_576  # the default
NOW = datetime(2026, 5, 12, 15, 0, tzinfo=UTC)


def dialogue_of(*texts: str, minutes_apart: float = 1.0) -> list[DialogueMessage]:
    """Messages of the user (``u:``) and the assistant (``a:``), the last one a minute ago."""
    dialogue = []
    for index, text in enumerate(texts):
        role = Role.USER if text[0] == "u" else Role.ASSISTANT
        row = Message(role=role, content=text[2:])
        row.created_at = NOW - timedelta(minutes=minutes_apart * (len(texts) - index))
        dialogue.append(DialogueMessage(role, text[2:], row))
    return dialogue


def recall(question: str, *texts: str, minutes_apart: float = 1.0, n_searched: int | None = None) -> Recall:
    passages = said_passages(dialogue_of(*texts, minutes_apart=minutes_apart), None, 0)
    return search(question, passages, now=NOW, n_searched=n_searched)


def found(question: str, *texts: str, minutes_apart: float = 1.0, n_searched: int | None = None) -> list[str]:
    recalled = recall(question, *texts, minutes_apart=minutes_apart, n_searched=n_searched)
    return [passage.text for passage in recalled.passages]


SMALL_TALK = (
    *("u:How do I boil an egg?", "a:Seven minutes in boiling water."),
    *("u:Tell me about bees", "a:They live in hives and make honey."),
    *("u:What is osmosis?", "a:Movement of water through a membrane."),
)


@pytest.mark.parametrize(
    ("fact", "question"),
    [
        ("My dentist is Dr. Osei on Maple Street.", "What is the name of my dentist?"),
        ("Mein Zahnarzt heißt Dr. Osei.", "Wie heißt mein Zahnarzt?"),
        ("Mi dentista se llama Osei.", "¿Cómo se llama mi dentista?"),
        ("我的牙医叫李伟。", "我的牙医叫什么?"),
        ("私の歯医者は田中先生です。", "私の歯医者は誰ですか?"),
        ("ทันตแพทย์ของฉันชื่อสมชาย", "ทันตแพทย์ของฉันชื่ออะไร"),
    ],
)
def test_a_statement_is_found_by_its_words(fact: str, question: str) -> None:
    assert found(question, *SMALL_TALK[:2], f"u:{fact}", "a:Noted.", *SMALL_TALK[2:])[0] == fact


def test_statements_come_before_earlier_questions_and_answers_about_the_same() -> None:
    texts = (
        *("u:Who is my dentist?", "a:I do not know your dentist."),
        *("u:My dentist is Dr. Osei.", "a:Noted, your dentist is Dr. Osei."),
    )
    assert found("What is my dentist called?", *SMALL_TALK, *texts)[0] == "My dentist is Dr. Osei."


def test_a_correction_is_recalled_with_what_it_corrects() -> None:
    texts = (
        *("u:The party is on the 17th of May.", "a:Lovely."),
        *SMALL_TALK,
        *("u:Actually, no: it is on the 18th of May, not the 17th.", "a:Changed."),
    )
    both = found("When is the party?", *texts)[:2]
    assert {text[:8] for text in both} == {"The part", "Actually"}


@pytest.mark.parametrize(
    ("stated", "corrected", "question"),
    [
        ("The new sofa costs 690 euros.", "Correction: the new sofa costs 740 euros.", "What does the sofa cost?"),
        ("Das neue Sofa kostet 690 Euro.", "Korrektur: das neue Sofa kostet 740 Euro.", "Was kostet das Sofa?"),
        ("El sofá nuevo cuesta 690 euros.", "Corrección: el sofá nuevo cuesta 740.", "¿Cuánto cuesta el sofá?"),
    ],
)
def test_a_correction_that_the_prompt_shows_stands_beside_what_it_corrects(
    stated: str, corrected: str, question: str
) -> None:
    texts = (f"u:{stated}", "a:Noted.", *SMALL_TALK, f"u:{corrected}", "a:All right.")
    n_searched = 2 + len(SMALL_TALK)
    assert sorted(found(question, *texts, n_searched=n_searched)) == sorted([stated, corrected])
    assert found(question, *texts[2:], n_searched=n_searched - 2) == [], "what it corrects is not hidden"


@pytest.mark.parametrize(
    ("stated", "corrected", "question", "is_repeated"),
    [
        ("The sofa costs 690 euros.", "Correction: the sofa costs 740 euros, not 690.", "What does the sofa cost?", 1),
        ("Das Sofa kostet 690 Euro.", "Korrektur: das Sofa kostet 740 Euro, nicht 690.", "Was kostet das Sofa?", 1),
        ("El sofá cuesta 690 euros.", "Corrección: el sofá cuesta 740 euros, no 690.", "¿Cuánto cuesta el sofá?", 1),
        (
            "By the way: the sofa costs 690 euros.",
            "No, the sofa costs 740 euros, not 690.",
            "What does the sofa cost?",
            1,
        ),
        (
            "Bevor ich es vergesse: unsere Putzhilfe kommt jeden Freitag.",
            "Unsere Putzhilfe hat den Tag geändert: sie kommt jetzt jeden Dienstag statt Freitag.",
            "Wann kommt die Putzhilfe?",
            1,
        ),
        (
            "Sofa of Ann: it costs 690.",
            "Actually the sofa of Ann costs 740 euros.",
            "What does the sofa of Ann cost?",
            0,
        ),
        (
            "The grey sofa costs 690 euros.",
            "Actually the sofa costs 740 euros, not 690.",
            "What does the sofa cost?",
            0,
        ),
        ("The sofa of Ann costs 690 euros.", "Actually the sofa of Ann costs 740.", "What does the sofa cost?", 0),
    ],
)
@pytest.mark.parametrize("n_searched", [None, 2])
def test_an_old_value_is_dropped_when_its_correction_repeats_all_of_it(
    stated: str, corrected: str, question: str, is_repeated: int, n_searched: int | None
) -> None:
    texts = (f"u:{stated}", "a:Noted.", *SMALL_TALK, f"u:{corrected}", "a:All right.")
    recalled = found(question, *texts, n_searched=n_searched)
    assert corrected in recalled
    assert (stated in recalled) is not bool(is_repeated)


def test_of_what_the_prompt_shows_nothing_is_recalled_and_worse_matches_neither() -> None:
    shown = ("u:I keep the spare key of the cellar under the lavender pot.", "a:Understood.")
    hidden = ("u:The key of a piano melody is G.", "a:A nice key.")
    question = "Where is the spare key of the cellar?"
    assert found(question, *hidden, *SMALL_TALK, n_searched=8) == ["The key of a piano melody is G."]
    assert found(question, *hidden, *SMALL_TALK, *shown, n_searched=8) == []


def test_of_passages_that_have_little_of_the_question_only_a_few_are_recalled() -> None:
    things = ("bread", "cheese", "honey", "apples", "coffee", "lemons", "butter", "olives")
    texts = [text for thing in things for text in (f"u:We have {thing} in the cellar.", "a:Noted.")]
    assert len(found("Is there a cake of bread cheese honey apples coffee lemons butter olives?", *texts)) == MAX_UNSURE
    assert len(found("Which food is there in the cellar?", *texts)) == len(things)


@pytest.mark.parametrize("reply", ["Noted.", "Good to know.", "Danke, das merke ich mir.", "De acuerdo, anotado."])
def test_a_reply_to_a_statement_is_not_recalled_with_it(reply: str) -> None:
    texts = ("u:My dentist is Dr. Osei.", f"a:{reply}", *SMALL_TALK)
    assert found("What is the name of my dentist?", *texts) == ["My dentist is Dr. Osei."]
    answered = ("u:Who is the best dentist of the town?", "a:The dentist Dr. Osei.", *SMALL_TALK)
    assert "The dentist Dr. Osei." in found("What is the name of that dentist?", *answered)


def test_a_text_is_indexed_once_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    indexed: list[str] = []

    def index_form(text: str) -> str:
        indexed.append(text)
        return text

    monkeypatch.setattr("chat.recall.passages.index_form", index_form)
    dialogue = dialogue_of(*SMALL_TALK)
    with parts_made_once():
        passages = said_passages(dialogue, None, 0)
        assert said_passages(dialogue, None, 0) == passages
    assert sorted(indexed) == sorted({"", *(message.text for message in dialogue)})
    assert passages[1].part.context_terms == dialogue[0].text


@pytest.mark.parametrize(
    "question", ["Thanks!", "Danke schön", "???", "", " ", "Hello", "and now?", "What is new today?"]
)
def test_thanks_and_greetings_recall_nothing(question: str) -> None:
    assert found(question, *SMALL_TALK, "u:My dentist is Dr. Osei.", "a:Noted.") == []


def test_a_question_about_something_else_recalls_nothing() -> None:
    assert found("How high is Mount Everest?", *SMALL_TALK, "u:My dentist is Dr. Osei.", "a:Noted.") == []


@pytest.mark.parametrize("question", ["What did I say first?", "Was habe ich zuerst gesagt?", "¿Qué dije primero?"])
def test_the_first_message_is_meant(question: str) -> None:
    assert "How do I boil an egg?" in found(question, *SMALL_TALK, "u:My dentist is Dr. Osei.", "a:Noted.")[:3]


@pytest.mark.parametrize(
    "question",
    [
        "What was my last question?",
        "What did I just ask?",
        "Was war meine letzte Frage?",
        "Was habe ich gerade gefragt?",
        "¿Cuál fue mi última pregunta?",
        "¿Qué pregunté en mi mensaje anterior?",
    ],
)
def test_the_last_question_is_meant(question: str) -> None:
    texts = [text for number in range(20) for text in (f"u:Tell me about number {number}", f"a:{number} is nice.")]
    assert sorted(found(question, *texts)) == [f"Tell me about number {number}" for number in (17, 18, 19)]
    assert found(question, *texts, n_searched=30) == [], "the prompt shows it"


@pytest.mark.parametrize(
    "question",
    [
        "What did we talk about an hour ago?",
        "Worüber haben wir vor einer Stunde gesprochen?",
        "¿De qué hablamos hace una hora?",
    ],
)
def test_a_time_ago_is_meant(question: str) -> None:
    # Messages 80, 70, 60, ... minutes ago.
    texts = found(question, *SMALL_TALK, "u:My dentist is Dr. Osei.", "a:Noted.", minutes_apart=10)
    assert "What is osmosis?" in texts
    assert "My dentist is Dr. Osei." not in texts


def test_what_the_assistant_suggested_is_found_by_its_question() -> None:
    assert "Seven minutes in boiling water." in found("What did you say about the egg?", *SMALL_TALK)[:2]


def test_equal_messages_are_recalled_once() -> None:
    texts = [text for _ in range(300) for text in ("u:My dentist is Dr. Osei.", "a:Noted.")]
    assert found("Who is my dentist?", *texts) == ["My dentist is Dr. Osei."]


@pytest.mark.parametrize("n_bytes", [22_000, REQUEST_MAX_BYTES], ids=["long", "as long as a request may be"])
def test_the_parts_of_a_long_message_are_found_alone(n_bytes: int) -> None:
    fact, filler = "The safe opens with 4711.", "The weather was fine and nothing happened on that day. "
    half = filler * ((n_bytes - len(fact)) // (2 * len(filler)))
    (passage, *_) = recall("Which number opens the safe?", f"u:{half}{fact} {half}", "a:Long.", *SMALL_TALK).passages
    assert fact in passage.text
    assert len(passage.text) <= 1_000


def test_of_3_000_turns_some_are_found() -> None:
    turns = [(f"u:Item number {number} costs {number} euros.", f"a:Yes, {number}.") for number in range(3_000)]
    texts = [text for turn in turns for text in turn]
    passages = recall("What does item number 1234 cost?", *texts).passages
    assert "Item number 1234 costs 1234 euros." in [passage.text for passage in passages[:2]]
    assert len(passages) <= MAX_FOUND


def test_without_vectors_the_limitation_is_reported() -> None:
    assert "by words alone" in recall("Who is my dentist?", "u:My dentist is Dr. Osei.").problem


def test_without_an_encoder_its_absence_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "unavailable_reason_without_loading", lambda: "the embedding model cannot be read")
    result = recall("Who is my dentist?", "u:My dentist is Dr. Osei.")
    assert (len(result.passages), result.problem) == (
        1,
        "searched by words alone: the embedding model cannot be read",
    )


@pytest.mark.parametrize("text", ["", " \n ", "one", " one two ", "x" * 5_000, "word " * 2_000, "a\n\nb\n" * 900])
def test_spans_cover_all_words_in_order(text: str) -> None:
    pieces = list(spans(text))
    assert "".join("".join(text[start:end].split()) for start, end in pieces) == "".join(text.split())
    assert all(before[1] <= after[0] for before, after in pairwise(pieces))

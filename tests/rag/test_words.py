"""Words in every script: what is the same word, and that it is found."""

import pytest

from chat.rag.indexing.indexer import add_note
from chat.rag.search.query_understanding import without_speakers
from chat.rag.search.terms import subject_words
from chat.rag.time_words import DUE_FORM, TIME_FORM, form_of_time_in_question, names_a_time, time_forms
from chat.rag.vectors import embedding
from chat.rag.words import index_form, words
from tests.rag.builders import ask, line, remember, texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4,200 euros", ["4200", "euros"]),
        ("4.200", ["4200"]),
        ("4\u202f200", ["4200"]),
        ("4'200", ["4200"]),
        ("1.234.567,50", ["1234567p50"]),
        ("3.5 and 3,5", ["3p5", "and", "3p5"]),
        ("05.03.2024 at 10:30", ["05", "03", "2024", "at", "10", "30"]),
        ("1,2,3", ["1", "2", "3"]),
        ("\u0664\u0662\u0660\u0660 \uff14\uff12\uff10\uff10", ["4200", "4200"]),
        ("Stra\u00dfe STRASSE", ["strasse", "strasse"]),
        ("Zoe\u0308 Zo\u00eb zoe", ["zoe", "zoe", "zoe"]),
        ("\u0141\u00f3d\u017a", ["lodz"]),
        ("\uff76\uff80\uff76\uff85", ["\u30ab\u30bf", "\u30bf\u30ab", "\u30ab\u30ca"]),
        ("\u304c\u3093", ["\u304c\u3093"]),
        ("\u6211\u4eec\u4e70\u7684X", ["\u6211\u4eec", "\u4eec\u4e70", "\u4e70\u7684", "x"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        (
            "\u0623\u062d\u0645\u062f \u0645\u062f\u0631\u0633\u0629",
            ["\u0627\u062d\u0645\u062f", "\u0645\u062f\u0631\u0633\u0647"],
        ),
        ("", []),
        ("\u2026 \U0001f44d", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_other_forms_share_an_index_form() -> None:
    for one, other in (
        ("budgets", "budget's"),
        ("Verhandlung", "Verhandlungen"),
        ("\u05d4\u05de\u05d7\u05e9\u05d1", "\u05de\u05d7\u05e9\u05d1"),
        ("\u0628\u0627\u0644\u0633\u064a\u0627\u0631\u0629", "\u0627\u0644\u0633\u064a\u0627\u0631\u0629"),
    ):
        assert set(index_form(one).split()) & set(index_form(other).split()), (one, other)


def test_a_word_without_end_is_cut() -> None:
    assert len(index_form("x" * 100_000)) < 200
    assert words("\u0301" * 50_000) == []


PRODUCTS = ["\u6c34\u6676\u706f", "\u84dd\u8272\u6905\u5b50", "\u65e7\u6253\u5370\u673a", "\u91d1\u5c5e\u68af\u5b50"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases
class TestFoundByWordsAlone:
    @pytest.fixture(autouse=True)
    def _no_vectors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: None)
        monkeypatch.setattr(embedding, "embed_passages", lambda inputs, encoding: None)

    @pytest.mark.parametrize(
        ("template", "names"),
        [
            ("\u6211\u4eec\u4e0a\u5468\u4e70\u7684{}\u6709\u95ee\u9898", PRODUCTS),
            (
                "\u5148\u9031\u8cb7\u3063\u305f{}\u304c\u58ca\u308c\u305f",
                ["\u51b7\u8535\u5eab", "\u30ab\u30e1\u30e9", "\u81ea\u8ee2\u8eca", "\u30d7\u30ea\u30f3\u30bf\u30fc"],
            ),
            (
                "\uc9c0\ub09c\uc8fc\uc5d0 \uc0b0 {}\uac00 \uace0\uc7a5\ub0ac\uc5b4\uc694",
                ["\uce74\uba54\ub77c", "\uc790\uc804\uac70", "\ubaa8\ub2c8\ud130", "\uc2a4\ud53c\ucee4"],
            ),
            (
                "\u0e40\u0e23\u0e32\u0e0b\u0e37\u0e49\u0e2d{}\u0e40\u0e21\u0e37\u0e48\u0e2d\u0e27\u0e32\u0e19",
                [
                    "\u0e01\u0e25\u0e49\u0e2d\u0e07",
                    "\u0e15\u0e39\u0e49\u0e40\u0e22\u0e47\u0e19",
                    "\u0e08\u0e31\u0e01\u0e23\u0e22\u0e32\u0e19",
                    "\u0e1e\u0e31\u0e14\u0e25\u0e21",
                ],
            ),
            (
                "\u05d4{} \u05e9\u05e7\u05e0\u05d9\u05e0\u05d5 \u05de\u05e7\u05d5\u05dc\u05e7\u05dc",
                [
                    "\u05de\u05d7\u05e9\u05d1",
                    "\u05de\u05e7\u05e8\u05e8",
                    "\u05d0\u05d5\u05e4\u05e0\u05d9\u05d9\u05dd",
                    "\u05de\u05d3\u05e4\u05e1\u05ea",
                ],
            ),
            ("We bought the {} last week", ["r\u00e9frigerator", "Camera", "B\u0130CYCLE", "stra\u00dfe"]),
        ],
    )
    def test_the_line_with_the_name_is_first(self, template: str, names: list[str]) -> None:
        remember(*(line(template.format(name)) for name in names))
        for name in names:
            assert texts(ask(name))[0] == template.format(name)
            assert texts(ask(name.upper()))[0] == template.format(name)

    def test_numbers_with_and_without_separators(self) -> None:
        remember("The roof costs 4,200 euros.", "The floor costs 2,400 euros.", "Gate 42 has 00 staff.")
        for question in ("4200", "4.200", "4 200", "What costs 4,200 euros?"):
            assert texts(ask(question))[0] == "The roof costs 4,200 euros."
            assert texts(ask("4200")) == ["The roof costs 4,200 euros."]

    def test_the_title_of_a_recording_is_a_word_of_each_line(self) -> None:
        remember("We begin in May.", "Fine.", title="Kickoff Acme", job_id="a")
        remember("We begin in June.", title="Kickoff Heron", job_id="b")
        assert set(texts(ask("Acme"))) == {"We begin in May.", "Fine."}

    def test_the_file_of_a_note_is_a_word_of_each_part(self) -> None:
        for name in ("Heron", "Falcon"):
            add_note(
                owner="", title="Status", body=f"All is well {name[::-1]}.", metadata={"file": f"Project {name}.md"}
            )
        assert texts(ask("What is the status of Project Falcon?"))[0].startswith("Status\nAll is well noclaF")

    def test_a_speaker_with_and_without_accent(self) -> None:
        remember(line("The roof leaks.", "Zoe\u0308"), line("The floor creaks.", "Max"))
        assert ask("What did Zoe say?").sources[0].speaker == "Zo\u00eb"
        assert ask("What did Zo\u00eb say?").sources[0].speaker == "Zo\u00eb"


@pytest.mark.parametrize(
    "text",
    [
        "Danke!",
        "\u4f60\u597d",
        "Hello",
        "Thanks a lot!",
        "Merci !",
        "\u00a1Gracias!",
        "\u0634\u0643\u0631\u0627\u064b!",
        "Guten Morgen",
    ],
)
def test_courtesies_have_no_subject(text: str) -> None:
    assert subject_words(text) == []


def test_a_stop_word_of_another_language_is_a_subject() -> None:
    assert "hat" in subject_words("What hat did she buy?")
    assert "hat" not in subject_words("Was hat sie gekauft?")


@pytest.mark.parametrize(
    "text",
    [
        "by Friday",
        "on the 14th",
        "at 10:30",
        "bis Montag",
        "ma\u00f1ana",
        "jeudi",
        "14\u65e5",
        "\u660e\u5929",
        "\u064a\u0648\u0645 \u0627\u0644\u062c\u0645\u0639\u0629",
    ],
)
def test_times(text: str) -> None:
    assert names_a_time(text)


@pytest.mark.parametrize("text", ["a fried egg", "12 chairs", "maybe"])
def test_no_times(text: str) -> None:
    assert not names_a_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "The demo has to be finished by Friday the 14th.",
        "I said today that it is due on Monday.",
        "Das muss bis Freitag, den 14., fertig sein.",
        "Gestern hieß es: bis Montag.",
        "mañana por la tarde",
        "avant le vendredi 14",
        "14日の金曜日までに",
        "必须在14号之前完成",
        "قبل يوم الجمعة",
    ],
)
def test_times_to_come(text: str) -> None:
    assert time_forms(text) == [TIME_FORM, DUE_FORM]


@pytest.mark.parametrize(
    "text",
    [
        "Lunch was great today.",
        "We met last Friday.",
        "Das Essen gestern war gut.",
        "Letzte Woche hat es geregnet.",
        "la semana pasada",
        "le mois dernier",
        "今天的午饭很好",
        "先週食べた",
        "كان الغداء رائعاً اليوم.",
    ],
)
def test_times_that_are_over(text: str) -> None:
    assert time_forms(text) == [TIME_FORM]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("When do we leave?", TIME_FORM),
        ("Wann geht es los?", TIME_FORM),
        ("\u4ec0\u4e48\u65f6\u5019\uff1f", TIME_FORM),
        ("Who leaves?", None),
        ("What did Sarah say about the deadline?", DUE_FORM),
        ("By when do we need it?", DUE_FORM),
        ("Bis wann brauchen wir es?", DUE_FORM),
        ("¿Cuál es la fecha límite?", DUE_FORM),
        ("Quelle est la date limite ?", DUE_FORM),
        ("いつまで？", DUE_FORM),
    ],
)
def test_questions_for_a_time(text: str, expected: str | None) -> None:
    assert form_of_time_in_question(text) == expected


@pytest.mark.parametrize(
    ("question", "speakers", "expected"),
    [
        ("What did Sarah say about it?", ["sarah"], "What did say about it?"),
        ("What is Ann Lee's plan?", ["ann lee"], "What is plan?"),
        ("\u6797\u60a6\u8bf4\u4e86\u4ec0\u4e48\uff1f", ["\u6797\u60a6"], "\u8bf4\u4e86\u4ec0\u4e48\uff1f"),
        ("Sarah?", ["sarah"], "Sarah?"),
        ("What did Sarah say?", [], "What did Sarah say?"),
    ],
)
def test_questions_without_the_names_of_speakers(question: str, speakers: list[str], expected: str) -> None:
    assert without_speakers(question, speakers) == expected

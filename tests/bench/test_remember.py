"""The scripts of ``bench.remember``, and its judgement of answers: no wrong one accepted, no right one refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.remember_data import LANGUAGES, MAX_TURNS, MIN_TURNS, Fact, only_facts, script, talk_of
from bench.remember_results import Outcome, Settings, append, load, table
from bench.remember_scoring import is_refused, is_right

WEDDING = Fact(statement="", question="", value="18", old="17", correction="18, not 17")
SOFA = Fact(statement="", question="", value="690", old="740", correction="690, not 740")
CITY = Fact(statement="", question="", value="Kassel", old="Bremen", correction="Kassel, not Bremen")


def fact(value: str, **fields: str) -> Fact:
    return Fact(statement="", question="", value=value, **fields)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_script_has_its_facts_once_and_corrections_later(language: str) -> None:
    for seed in range(6):
        talk = talk_of(language, seed=seed)
        texts = [text for text, _ in talk.turns]
        assert MIN_TURNS <= len(texts) <= MAX_TURNS
        assert len(set(texts)) == len(texts)
        assert (len(talk.facts), sum(bool(fact.correction) for fact in talk.facts)) == (12, 3)
        assert len(set(talk.unanswerable)) == 4
        for item in talk.facts:
            (said,) = [number for number, text in enumerate(texts) if text.endswith(item.statement)]
            later = [number for number, text in enumerate(texts) if item.correction and text.endswith(item.correction)]
            assert len(later) == bool(item.correction)
            assert all(number > said for number in later)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_words_of_the_script_are_right_answers_and_no_others_are(language: str) -> None:
    for seed in range(6):
        talk = talk_of(language, seed=seed)
        for item in talk.facts:
            assert is_right(item.correction or item.statement, item, language)
            assert not (item.correction and is_right(item.statement, item, language))
            wrong = [text for text in [*script(language)["noted"], item.question] if is_right(text, item, language)]
            assert not wrong
            others = [other for other in talk.facts if other is not item]
            assert not [other for other in others if is_right(other.correction or other.statement, item, language)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_statement_is_a_refusal(language: str) -> None:
    texts = script(language)
    statements = [row["says"] for row in texts["facts"]] + [row.get("corrects", "") for row in texts["facts"]]
    assert not [text for text in [*statements, *texts["unanswerable"]] if is_refused(text, language)]


@pytest.mark.parametrize(
    ("answer", "item", "language"),
    [
        ("The wedding is on June 18th, not on the 17th.", WEDDING, "en"),
        ("It was on 17 June, but you moved it to 18 June.", WEDDING, "en"),
        ("On the eighteenth of June.", WEDDING, "en"),
        ("No, the 18th of June.", WEDDING, "en"),
        ("Am 18.06. statt am 17.", WEDDING, "de"),
        ("Die Hochzeit ist am achtzehnten Juni.", WEDDING, "de"),
        ("Vom 17. auf den 18. Juni verschoben.", WEDDING, "de"),
        ("El 18 de junio, no el 17.", WEDDING, "es"),
        ("The couch is €690.00.", SOFA, "en"),
        ("690€", SOFA, "en"),
        ("Instead of 740 euros it costs 690 euros.", SOFA, "en"),
        ("Das Sofa kostet nicht 740, sondern 690,00 Euro.", SOFA, "de"),
        ("Cuesta 690 euros en lugar de 740.", SOFA, "es"),
        ("El precio es de 690 euros.", SOFA, "es"),
        ("You meet in **Kassel** instead of Bremen.", CITY, "en"),
        ("Ursprünglich war Bremen geplant, jetzt Kassel.", CITY, "de"),
        ("You must avoid walnuts; you can't eat them.", fact("walnut"), "en"),
        ("Du kannst keine anderen Nüsse als Walnüsse nicht essen: Walnuss.", fact("Walnüsse"), "de"),
        ("Tienes alergia a la nuez.", fact("nueces"), "es"),
        ("Gate b 12", fact("B12"), "en"),
        ("Am liebsten mit dem Zug.", fact("den Zug"), "de"),
        ("You prefer trains to planes.", fact("train", wrong="prefer planes"), "en"),
        ("I don't know your doctor. Your dentist is Dr. Osei.", fact("Osei"), "en"),
        ("Dr. Osei's practice.", fact("Osei"), "en"),
        ("A turquoise kitchen, türkisfarben", fact("türkis"), "de"),
        ("Viajas en autobus", fact("autobús"), "es"),
    ],
)
def test_right_answers(answer: str, item: Fact, language: str) -> None:
    assert is_right(answer, item, language)


@pytest.mark.parametrize(
    ("answer", "item", "language"),
    [
        ("On 17 June.", WEDDING, "en"),
        ("On 17 June, not on 18 June.", WEDDING, "en"),
        ("Between 17 and 18 June.", WEDDING, "en"),
        ("In June 2018.", WEDDING, "en"),
        ("Nicht am 18., sondern am 17. Juni.", WEDDING, "de"),
        ("El 17 de junio, no el 18.", WEDDING, "es"),
        ("It costs 1,690 euros.", SOFA, "en"),
        ("It costs 690.50 euros.", SOFA, "en"),
        ("Das Sofa kostet 690.000 Euro.", SOFA, "de"),
        ("El precio es de 740 euros, no de 690.", SOFA, "es"),
        ("The price was 740 euros.", SOFA, "en"),
        ("In Bremen or Kassel.", CITY, "en"),
        ("I don't know whether your dentist is Dr. Osei.", fact("Osei"), "en"),
        ("Ich weiß leider nicht, ob Dr. Osei gemeint ist.", fact("Osei"), "de"),
        ("Lo siento, no sé quién es Osei", fact("Osei"), "es"),
        ("You prefer planes to trains.", fact("train", wrong="prefer (?:the )?planes?"), "en"),
        ("Du bevorzugst das Flugzeug.", fact("den Zug"), "de"),
        ("El entrenamiento.", fact("tren"), "es"),
        ("Walnuts are not a food that can be avoided.", fact("walnut", wrong="not .{0,40}avoided"), "en"),
        ("Number 4820", fact("482"), "en"),
        ("Gate B120", fact("B12"), "en"),
        ("", fact("Osei"), "en"),
    ],
)
def test_wrong_answers(answer: str, item: Fact, language: str) -> None:
    assert not is_right(answer, item, language)


@pytest.mark.parametrize(
    ("answer", "language", "is_refusal"),
    [
        ("I don't know.", "en", True),
        ("I’m sorry, but I cannot tell you that.", "en", True),
        ("The name of your boss was not mentioned.", "en", True),
        ("You haven't told me.", "en", True),
        ("There is no information about it in the record.", "en", True),
        ("You can't eat walnuts.", "en", False),
        ("You do not pay rent.", "en", False),
        ("Your boss is Dr. Osei.", "en", False),
        ("Das weiß ich leider nicht.", "de", True),
        ("Dazu habe ich keine Informationen.", "de", True),
        ("Das wurde nicht erwähnt.", "de", True),
        ("Ich kann dir das nicht sagen.", "de", True),
        ("Du darfst keine Walnüsse essen.", "de", False),
        ("Dein Chef heißt Osei.", "de", False),
        ("No lo sé.", "es", True),
        ("No tengo información sobre eso.", "es", True),
        ("No se ha mencionado.", "es", True),
        ("No puedes comer nueces.", "es", False),
        ("Tu jefe se llama Osei.", "es", False),
    ],
)
def test_refusals(answer: str, language: str, is_refusal: bool) -> None:
    assert is_refused(answer, language) is is_refusal


SETTINGS = Settings(model="m", context=2048, summary_at="0.75")


def outcome_of(way: str, right: int, settings: Settings = SETTINGS) -> Outcome:
    talk = talk_of("en", seed=1)
    return Outcome(
        key=settings.key(way, talk), way=way, language="en", seed=1, settings=settings, right=right, n_facts=12
    )


def test_an_interrupted_run_continues_behind_its_last_complete_line(tmp_path: Path) -> None:
    path = tmp_path / "remember.jsonl"
    assert load(path) == []
    first, second = outcome_of("plain", 6), outcome_of("recall", 9)
    append(path, first)
    path.write_bytes(path.read_bytes() + b'{"key": "cut sh\xc3')
    assert load(path) == [first]
    append(path, second)
    assert load(path) == [first, second]
    assert path.read_bytes().count(b"\n") == 2


def test_another_script_or_setting_is_another_outcome() -> None:
    talk, other = talk_of("en", seed=1), talk_of("en", seed=2)
    changes: list[dict[str, Any]] = [{"model": "n"}, {"context": 4096}, {"pause": 0.0}, {"summary_at": ""}]
    keys = [replace(SETTINGS, **change).key("recall", talk) for change in changes]
    keys += [SETTINGS.key("recall", talk), SETTINGS.key("plain", talk), SETTINGS.key("recall", other)]
    keys += [replace(SETTINGS, label="x").key("recall", talk), SETTINGS.key("recall", only_facts(talk))]
    assert len(set(keys)) == len(keys)
    assert SETTINGS.key("recall", talk_of("en", seed=1)) == SETTINGS.key("recall", talk)


def test_the_table_compares_with_plain_view_and_with_the_best_way() -> None:
    plain = outcome_of("plain", 6, replace(SETTINGS, context=16_384, summary_at=""))
    # Facts without the talk around them are a ceiling of their own, no way to hold a conversation.
    rows = [plain, outcome_of("recall", 9), outcome_of("truncate", 3), outcome_of("facts alone", 12)]
    cells = {line.split(" | ")[2]: line.split(" | ")[4:7] for line in table(rows).splitlines() if "stored" in line}
    assert cells["plain"] == ["6/12 (50%)", "1.00", "0.67"]
    assert cells["recall"] == ["9/12 (75%)", "1.50", "1.00"]
    assert cells["truncate"] == ["3/12 (25%)", "0.50", "0.33"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_facts_of_a_conversation_remain(language: str) -> None:
    for seed in range(6):
        talk = talk_of(language, seed=seed)
        small = only_facts(talk)
        assert len(small.turns) == 15
        for fact in talk.facts:
            assert sum(text.endswith(fact.statement) for text, _ in small.turns) == 1

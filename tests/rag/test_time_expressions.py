"""Words of time in several languages, relative to Wednesday, 11 March 2026."""

from datetime import date

import pytest
from pytest_django import Settings

from chat.rag.search.calendar_spans import DateSpan
from chat.rag.search.query_understanding import understand_query
from chat.rag.search.time_expressions import is_about_the_latest, span_in

TODAY = date(2026, 3, 11)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("what happened today", "2026-03-11", "2026-03-11"),
        ("this morning", "2026-03-11", "2026-03-11"),
        ("Yesterday's call", "2026-03-10", "2026-03-10"),
        ("the day before yesterday", "2026-03-09", "2026-03-09"),
        ("on Monday", "2026-03-09", "2026-03-09"),
        ("on Wednesday", "2026-03-04", "2026-03-04"),
        ("last Friday", "2026-03-06", "2026-03-06"),
        ("since Monday", "2026-03-09", None),
        ("before Monday", None, "2026-03-08"),
        ("this week", "2026-03-09", "2026-03-15"),
        ("last week", "2026-03-02", "2026-03-08"),
        ("last month", "2026-02-01", "2026-02-28"),
        ("this year", "2026-01-01", "2026-12-31"),
        ("last year", "2025-01-01", "2025-12-31"),
        ("in the last 3 days", "2026-03-08", "2026-03-11"),
        ("the past two weeks", "2026-02-25", "2026-03-11"),
        ("two days ago", "2026-03-09", "2026-03-09"),
        ("a week ago", "2026-03-02", "2026-03-08"),
        ("3 months ago", "2025-12-01", "2025-12-31"),
        ("in October", "2025-10-01", "2025-10-31"),
        ("in March", "2026-03-01", "2026-03-31"),
        ("since january", "2026-01-01", None),
        ("until February", None, "2026-02-28"),
        ("October 2024", "2024-10-01", "2024-10-31"),
        ("in 2024", "2024-01-01", "2024-12-31"),
        ("on 3 March", "2026-03-03", "2026-03-03"),
        ("on March 12th", "2025-03-12", "2025-03-12"),
        ("the 3rd of March, 2024", "2024-03-03", "2024-03-03"),
        ("on 2026-03-01", "2026-03-01", "2026-03-01"),
        ("from 2026-03-01 to 2026-03-05", "2026-03-01", "2026-03-05"),
        ("after 2026-03-01", "2026-03-01", None),
        ("before 2026-03-01", None, "2026-02-28"),
        ("\u017fince 2026-03-01", "2026-03-01", None),
        ("on 3 \u017feptember 2025", "2025-09-03", "2025-09-03"),
        ("last \u017faturday", "2026-03-07", "2026-03-07"),
        ("thi\u017f week", "2026-03-09", "2026-03-15"),
    ],
)
def test_a_time_that_is_named(text: str, start: str | None, end: str | None) -> None:
    expected = DateSpan(start and date.fromisoformat(start), end and date.fromisoformat(end))  # type: ignore[arg-type]
    assert span_in(f"What was said {text}?", TODAY) == expected


@pytest.mark.parametrize(
    "text",
    [
        "It may be so",
        "They march on",
        "Mondays are hard",
        "room 2024",
        "",
        "2026-02-30",
        "sunny",
        "the 3 of us",
        "August is my cousin",
    ],
)
def test_no_time_is_named(text: str) -> None:
    assert span_in(text, TODAY) is None


@pytest.mark.parametrize("text", ["the latest on the budget", "What did she say last time?", "most recently", "LATELY"])
def test_the_latest_is_asked_for(text: str) -> None:
    assert is_about_the_latest(text)


@pytest.mark.parametrize("text", ["who came late", "at last", "last week", "the lasting effect"])
def test_the_latest_is_not_asked_for(text: str) -> None:
    assert not is_about_the_latest(text)


GERMAN: list[tuple[str, str | None, str | None]] = [
    ("Was hat Änne gestern gesagt?", "2026-03-10", "2026-03-10"),
    ("vorgestern", "2026-03-09", "2026-03-09"),
    ("letzte Woche", "2026-03-02", "2026-03-08"),
    ("in der letzten Woche", "2026-03-02", "2026-03-08"),
    ("im letzten Monat", "2026-02-01", "2026-02-28"),
    ("letzten Monat", "2026-02-01", "2026-02-28"),
    ("seit Montag", "2026-03-09", None),
    ("bis zum 3. März", None, "2026-03-03"),
    ("vor Freitag", None, "2026-03-05"),
    ("vor zwei Wochen", "2026-02-23", "2026-03-01"),
    ("in den letzten drei Tagen", "2026-03-08", "2026-03-11"),
    ("im November", "2025-11-01", "2025-11-30"),
    ("am 28.11. war was?", "2025-11-28", "2025-11-28"),
    ("nach dem 28.11.2025", "2025-11-28", None),
    ("letztes Jahr", "2025-01-01", "2025-12-31"),
]
ROMANCE: list[tuple[str, str | None, str | None]] = [
    ("¿Qué dijo Ana ayer?", "2026-03-10", "2026-03-10"),
    ("la semana pasada", "2026-03-02", "2026-03-08"),
    ("el 3 de marzo", "2026-03-03", "2026-03-03"),
    ("el 3 de marzo de 2024", "2024-03-03", "2024-03-03"),
    ("en noviembre de 2025", "2025-11-01", "2025-11-30"),
    ("hace 3 días", "2026-03-08", "2026-03-08"),
    ("desde el lunes", "2026-03-09", None),
    ("hoy", "2026-03-11", "2026-03-11"),
    ("Qu'a dit Anna hier ?", "2026-03-10", "2026-03-10"),
    ("la semaine dernière", "2026-03-02", "2026-03-08"),
    ("il y a trois jours", "2026-03-08", "2026-03-08"),
    ("depuis lundi", "2026-03-09", None),
    ("les 3 derniers jours", "2026-03-08", "2026-03-11"),
    ("en mars", "2026-03-01", "2026-03-31"),
    ("ieri", "2026-03-10", "2026-03-10"),
    ("ontem", "2026-03-10", "2026-03-10"),
]
UNSPACED: list[tuple[str, str | None, str | None]] = [
    ("昨天安娜说了什么", "2026-03-10", "2026-03-10"),
    ("上周五", "2026-03-06", "2026-03-06"),
    ("上个月", "2026-02-01", "2026-02-28"),
    ("三天前", "2026-03-08", "2026-03-08"),
    ("11月28日", "2025-11-28", "2025-11-28"),
    ("11月28日以来", "2025-11-28", None),
    ("2025年11月", "2025-11-01", "2025-11-30"),
    ("十一月", "2025-11-01", "2025-11-30"),
    ("去年", "2025-01-01", "2025-12-31"),
    ("昨日アンは何と言いましたか", "2026-03-10", "2026-03-10"),
    ("先週の金曜日", "2026-03-06", "2026-03-06"),
    ("3日前", "2026-03-08", "2026-03-08"),
    ("월요일", "2026-03-09", "2026-03-09"),
    ("어제는 무슨 말을 했어?", "2026-03-10", "2026-03-10"),
    ("지난주", "2026-03-02", "2026-03-08"),
]
OTHERS: list[tuple[str, str | None, str | None]] = [
    ("ماذا قالت آنا أمس؟", "2026-03-10", "2026-03-10"),
    ("ماذا قيل بالأمس", "2026-03-10", "2026-03-10"),
    ("الأسبوع الماضي", "2026-03-02", "2026-03-08"),
    ("вчера", "2026-03-10", "2026-03-10"),
    ("на прошлой неделе", "2026-03-02", "2026-03-08"),
    ("wczoraj", "2026-03-10", "2026-03-10"),
    ("dün", "2026-03-10", "2026-03-10"),
    ("igår", "2026-03-10", "2026-03-10"),
    ("אתמול", "2026-03-10", "2026-03-10"),
    ("28.11.2025", "2025-11-28", "2025-11-28"),
    ("11/28/2025", "2025-11-28", "2025-11-28"),
    ("28/11/2025", "2025-11-28", "2025-11-28"),
    ("2025/11/28", "2025-11-28", "2025-11-28"),
    ("in Sept", "2025-09-01", "2025-09-30"),
    ("the Sept meeting", "2025-09-01", "2025-09-30"),
    ("on 3 Dec", "2025-12-03", "2025-12-03"),
    ("Dec. 3, 2024", "2024-12-03", "2024-12-03"),
]


@pytest.mark.parametrize(("text", "start", "end"), GERMAN + ROMANCE + UNSPACED + OTHERS)
def test_languages(text: str, start: str | None, end: str | None) -> None:
    expected = DateSpan(start and date.fromisoformat(start), end and date.fromisoformat(end))  # type: ignore[arg-type]
    assert span_in(text, TODAY) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Was hat Anna hier gesagt?",
        "Wat heeft Anna hier gezegd?",
        "am nächsten Freitag",
        "el próximo lunes",
        "mañana",
        "Kapitel 3.2.1",
        "version 1.2.3",
        "192.168.1.1",
        "30.02.2026",
        "It was a so-so day, mi amigo",
        "Mar del Plata",
    ],
)
def test_no_time_in_any_language(text: str) -> None:
    assert span_in(text, TODAY) is None


def test_the_language_decides_between_day_and_month(settings: Settings) -> None:
    settings.GEMMA_LANGUAGE = "de"
    assert span_in("3/5/2025", TODAY) == DateSpan(date(2025, 5, 3), date(2025, 5, 3))
    settings.GEMMA_LANGUAGE = "en-US"
    assert span_in("3/5/2025", TODAY) == DateSpan(date(2025, 3, 5), date(2025, 3, 5))


@pytest.mark.parametrize(
    "text",
    ["Was ist das Neueste?", "zuletzt", "la última reunión", "la dernière fois", "最近どう?", "最新消息", "آخر اجتماع"],
)
def test_the_latest_in_other_languages(text: str) -> None:
    assert is_about_the_latest(text)


@pytest.mark.parametrize(
    ("text", "speaker"),
    [
        ("Was hat Änne gestern gesagt?", "änne"),
        ("What did Zoe say last week?", "zoe\u0308"),
        ("What did Zoë say last week?", "zoe"),
        ("¿Qué dijo José ayer?", "josé"),
        ("Was hat Änne vor zwei Wochen gesagt?", "änne"),
        ("Qu'a dit Éric hier ?", "éric"),
        ("ماذا قالت آنا أمس؟", "آنا"),
        ("昨天Kai说了什么？", "kai"),
        ("Kai昨天说了什么？", "kai"),
        ("昨日Kaiは何と言った？", "kai"),
        ("上周Kai说了什么？", "kai"),
    ],
)
def test_questions_of_a_speaker_and_a_time_alone(text: str, speaker: str) -> None:
    hints = understand_query(text, today=TODAY, speakers=[speaker, "bob"], emotions=[])
    assert hints.speakers == (speaker,)
    assert hints.has_no_subject


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("Wann war Ann wütend?", "angry"),
        ("¿Cuándo estaba triste?", "sad"),
        ("Quand était-elle heureuse ?", "happy"),
        ("彼はいつ怒っていましたか", "angry"),
        ("她什么时候高兴", "happy"),
        ("متى كان سعيد", "happy"),
    ],
)
def test_emotions(text: str, emotion: str) -> None:
    hints = understand_query(text, today=TODAY, speakers=[], emotions=["angry", "sad", "happy", "calm"])
    assert hints.emotions == (emotion,)

"""Texts with speakers and times, as programs and people write them; front matter; captions that roll."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from chat.rag.ingest import captions
from chat.rag.ingest.dates import moment_in_name
from chat.rag.ingest.formats import parse
from chat.rag.ingest.line_labels import label_of
from chat.rag.ingest.paragraphs import split_lines
from chat.rag.records import TranscriptIn

Line = tuple[str, str, float | None]


def recording(text: str, name: str = "a.txt") -> TranscriptIn:
    parsed = parse(text, Path(name))
    assert (parsed.problems, parsed.notes) == ([], [])
    [transcript] = parsed.transcripts
    return transcript


def spoken(transcript: TranscriptIn) -> list[Line]:
    return [(entry.speaker, entry.text, entry.start_secs) for entry in transcript.segments]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Ann Lee  0:03\nWe start.\nNow.\n\nBob Ray  0:09\nFine.\n",
            [("Ann Lee", "We start. Now.", 3), ("Bob Ray", "Fine.", 9)],
        ),
        (
            "Ann Lee  0:03\n\nWe start.\n\nAnd more.\n\nBob  1:00:09\nFine.\n",
            [("Ann Lee", "We start.", 3), ("Ann Lee", "And more.", 3), ("Bob", "Fine.", 3609)],
        ),
        ("[00:15] Bob: text\n[00:20] Ann Lee: two\nlines", [("Bob", "text", 15), ("Ann Lee", "two lines", 20)]),
        ("00:00:15 Bob: text\n00:00:20 Ann: two", [("Bob", "text", 15), ("Ann", "two", 20)]),
        ("(0:15) bob: text\n(0:20) ann: two", [("bob", "text", 15), ("ann", "two", 20)]),
        ("0:15 - Bob: text\n0:20 - Ann: two", [("Bob", "text", 15), ("Ann", "two", 20)]),
        ("Bob Ray (00:00:15): text\nAnn [00:16]: two", [("Bob Ray", "text", 15), ("Ann", "two", 16)]),
        ("Speaker 1 (00:15)\ntext\nSpeaker 2 (00:16)\ntwo", [("Speaker 1", "text", 15), ("Speaker 2", "two", 16)]),
        ("[00:15] Ann Lee\ntext\n[00:16] Bob\ntwo", [("Ann Lee", "text", 15), ("Bob", "two", 16)]),
        ("Ann:\ntext\nmore\n\nBob:\ntwo", [("Ann", "text more", None), ("Bob", "two", None)]),
        (
            "[00:00.000 --> 00:05.000]   Hello there\n[00:05.000 --> 00:07.000]  you",
            [("", "Hello there", 0), ("", "you", 5)],
        ),
        ("0:00\nhello\n0:04\nyou", [("", "hello", 0), ("", "you", 4)]),
        (
            "13:05:00 From Ann Lee to Everyone: hi\n13:06:00 From Bob to Ann Lee: yo",
            [("Ann Lee", "hi", 47_100), ("Bob", "yo", 47_160)],
        ),
        ("王伟：预算\n李娜：四千", [("王伟", "预算", None), ("李娜", "四千", None)]),
        ("田中: 予算\n鈴木：四千", [("田中", "予算", None), ("鈴木", "四千", None)]),
    ],
)
def test_forms_of_labels(text: str, expected: list[Line]) -> None:
    assert spoken(recording(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "**Ann Lee:** hello\n\n**Bob:** a **bold** word\n",
        "**Ann Lee**: hello\n\n**Bob**: a **bold** word\n",
        "- **Ann Lee:** hello\n- **Bob:** a **bold** word\n",
        "* __Ann Lee:__ hello\n* *Bob:* a **bold** word\n",
        "Ann Lee: hello\nBob: a **bold** word\n",
    ],
)
def test_markdown(text: str) -> None:
    expected = [("Ann Lee", "hello", None), ("Bob", "a **bold** word", None)]
    assert spoken(recording(text, "a.md")) == expected
    titled = recording(f"# Kickoff Acme\n\n{text}\n## Budget\n\n**Ann Lee (0:05):** done\n", "a.md")
    assert titled.title == "Kickoff Acme"
    assert spoken(titled) == [*expected, ("", "Budget", None), ("Ann Lee", "done", 5)]


@pytest.mark.parametrize(
    ("text", "moments"),
    [
        ("[05.03.24, 13:05:00] Ann: hi\n[05.03.24, 13:06:30] Bob: yo", ["2024-03-05T13:05:00", "2024-03-05T13:06:30"]),
        ("05.03.24, 13:05 - Ann: hi\n05.03.24, 13:06 - Bob: yo", ["2024-03-05T13:05:00", "2024-03-05T13:06:00"]),
        ("3/5/24, 1:05\u202fPM - Ann: hi\n3/5/24, 12:06 AM - Bob: yo", ["2024-03-05T13:05:00", "2024-03-05T00:06:00"]),
        # Of the same file, one line shows which number is the day.
        ("3/5/24, 13:05 - Ann: hi\n25/5/24, 13:06 - Bob: yo", ["2024-05-03T13:05:00", "2024-05-25T13:06:00"]),
        ("2024-03-05 13:05 Ann: hi\n2024-03-05 13:06 Bob: yo", ["2024-03-05T13:05:00", "2024-03-05T13:06:00"]),
    ],
)
def test_messages_with_dates(text: str, moments: list[str]) -> None:
    chat = recording(text)
    assert [(entry.speaker, entry.text) for entry in chat.segments] == [("Ann", "hi"), ("Bob", "yo")]
    assert [f"{entry.said_at:%Y-%m-%dT%H:%M:%S}" for entry in chat.segments] == moments
    assert chat.recorded_at == min(entry.said_at for entry in chat.segments if entry.said_at)


def test_phone_numbers_and_notices_in_a_chat() -> None:
    chat = recording("05.03.24, 13:05 - Messages are encrypted.\n05.03.24, 13:06 - +49 170 1234567: hi\nthere\n")
    assert [(entry.speaker, entry.text) for entry in chat.segments] == [
        ("", "Messages are encrypted."),
        ("+49 170 1234567", "hi there"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "10:30 Coffee\n11:00 Talk\n12:00 Lunch",
        "Lunch at 12:30\nis good\n",
        "Call Ann at 10:30: she knows.\nAnd then?\n",
        "Shopping list:\nmilk\nbread\n",
        "Note: bring cake.\nIt is late.\nOne more.\n",
        "http://example.org\nhttps://example.org/a:b\n",
    ],
)
def test_prose_stays_prose(text: str) -> None:
    parsed = parse(text, Path("a.txt"))
    assert parsed.transcripts == []
    assert " ".join(note.body for note in parsed.notes).split() == text.split()


@pytest.mark.parametrize("label", ["[Music]", "日期：", "Teilnehmer:", "**Attendees:**", "Action:", "音乐："])
def test_labels_of_nobody(label: str) -> None:
    transcript = recording(f"Ann: Welcome.\n{label} yes\nBob: Thanks.\n{label} no\nAnn: Bye.\n")
    assert {speaker for speaker, _, _ in spoken(transcript)} == {"Ann", "Bob"}


def test_the_date_of_minutes() -> None:
    minutes = recording("Minutes\nDate: 2024-03-05\nAttendees: Ann, Bob\n\nAnn: hi\nBob: yo\nAnn: a\nBob: b\n")
    assert minutes.recorded_at == datetime(2024, 3, 5, tzinfo=UTC)


@given(st.text(st.sampled_from("0123:,.- \n*_[]()AaBb\uff1a/"), max_size=120))
def test_no_letter_is_lost(text: str) -> None:
    if not any(map(str.isalnum, text)):
        return
    parsed = parse(text, Path("a.txt"))
    texts = [f"{entry.speaker} {entry.text}" for one in parsed.transcripts for entry in one.segments]
    present = set("".join(texts + [note.body for note in parsed.notes]))
    # A speaker who says nothing is no memory.
    silent = {
        character for line in split_lines(text) if (label := label_of(line)) and not label.rest for character in line
    }
    assert {character for character in text if character.isalpha()} <= present | silent


@pytest.mark.parametrize(
    ("head", "title", "day"),
    [
        ("---\ntitle: Plan\ndate: 2024-03-05 # call\n---", "Plan", "2024-03-05"),
        ("---\ndate: [[2024-03-05]]\ntitle: >-\n  A long\n  plan\n---", "A long plan", "2024-03-05"),
        ('---\ncreated: "[[2024-03-05]]"\n---', "", "2024-03-05"),
        ("---\ntitle: Plan: the second\ndate: 2024-03-05 # call\n---", "Plan: the second", "2024-03-05"),
        ("+++\ntitle = 'Plan'\ndate = 2024-03-05\n+++", "Plan", "2024-03-05"),
        ("+++\ndate = 2024-03-05T10:00:00Z\n+++", "", "2024-03-05"),
        ("---\nDate: 05.03.2024\nTitle: 2024\n...", "2024", "2024-03-05"),
        ("---\ntitle: |\n  Plan\ntags: [a, b]\ndate: 2024/03/05\n---", "Plan", "2024-03-05"),
        ("---\ndate: March 5, 2024\n---", "", "2024-03-05"),
        ("---\nfecha: 5 de marzo de 2024\n---", "", "2024-03-05"),
        ("---\ndate: around March 5, 2024\n---", "", None),
        ("---\ndate: last Friday\n---", "", None),
        ("---\n---", "", None),
    ],
)
def test_front_matter(head: str, title: str, day: str | None) -> None:
    [note] = parse(f"{head}\nHello.\n", Path("a.md")).notes
    assert (note.title, note.body) == (title, "Hello.")
    assert (note.created_at.date().isoformat() if note.created_at else None) == day


@pytest.mark.parametrize("text", ["---\nHello.", "---\n\nfoo\n\n---\nbar", "+++\nHello", "---\n- a\n- b\n---\nx"])
def test_rules_are_no_front_matter(text: str) -> None:
    notes = parse(text, Path("a.md")).notes
    assert "\n".join(note.body for note in notes) == text


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("05.03.2024 call", datetime(2024, 3, 5, tzinfo=UTC)),
        ("5.3.2024", datetime(2024, 3, 5, tzinfo=UTC)),
        ("call 2024-3-5", datetime(2024, 3, 5, tzinfo=UTC)),
        ("03-25-2024 call", datetime(2024, 3, 25, tzinfo=UTC)),
        ("25-03-2024 call", datetime(2024, 3, 25, tzinfo=UTC)),
        ("GMT20240305-130500_Recording", datetime(2024, 3, 5, 13, 5, tzinfo=UTC)),
        ("20240305T130500Z", datetime(2024, 3, 5, 13, 5, tzinfo=UTC)),
        ("WhatsApp Audio 2024-03-05 at 13.05.00", datetime(2024, 3, 5, 13, 5, tzinfo=UTC)),
        ("2024年3月5日 会议", datetime(2024, 3, 5, tzinfo=UTC)),
        ("5. März 2024 Sitzung", datetime(2024, 3, 5, tzinfo=UTC)),
        ("Call_March_5_2024", datetime(2024, 3, 5, tzinfo=UTC)),
        ("notes-5-mars-2024", datetime(2024, 3, 5, tzinfo=UTC)),
        ("reunión 5 de marzo de 2024", datetime(2024, 3, 5, tzinfo=UTC)),
        ("March 2024", None),
        ("yesterday 2024", None),
        ("Plan 2024 for Friday", None),
        ("30 February 2024", None),
        ("99.99.2024", None),
        ("v1.2.3", None),
        ("192.168.1.2024", None),
    ],
)
def test_dates_in_names(name: str, moment: datetime | None) -> None:
    assert moment_in_name(name) == moment


def test_gmt_is_no_local_time(settings: Settings) -> None:
    settings.TIME_ZONE = "America/New_York"
    assert moment_in_name("GMT20240305-130500") == datetime(2024, 3, 5, 13, 5, tzinfo=UTC)
    assert moment_in_name("20240305-130500") == datetime(2024, 3, 5, 18, 5, tzinfo=UTC)


def test_the_language_decides_between_day_and_month(settings: Settings) -> None:
    for language, month in (("en-US", 3), ("en", 3), ("en-GB", 5), ("de", 5), ("de-AT", 5), ("ja", 3), ("fr-CA", 5)):
        settings.GEMMA_LANGUAGE = language
        assert moment_in_name("3-5-2024") == datetime(2024, month, 8 - month, tzinfo=UTC), language


def cues(*texts: str) -> str:
    return "\n".join(f"00:00:{n:02}.000 --> 00:00:{n + 1:02}.000\n{text}\n" for n, text in enumerate(texts))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("one", "one\ntwo", "two\nthree"), ["one", "two", "three"]),
        (("one", "one\ntwo", "one\ntwo\nthree", "two\nthree\nfour"), ["one", "two", "three", "four"]),
        (
            (
                " \nhello<00:00:00.500><c> world</c>",
                "hello world\n ",
                "hello world\nhow<00:00:02.5><c> are</c>",
                "how are",
            ),
            ["hello world", "how are"],
        ),
        (("so", "so we", "so we begin", "then"), ["so we begin", "then"]),
        (("<v Ann>one", "<v Ann>one\ntwo", "<v Ann>two\nthree"), ["one", "two", "three"]),
        # Repeated by the speaker.
        (("No.", "No.", "No."), ["No.", "No.", "No."]),
        (("Yes.", "Good.", "Yes.\nReally.", "a", "b", "c", "d"), ["Yes.", "Good.", "Yes. Really.", "a", "b", "c", "d"]),
    ],
)
def test_rolling_captions(texts: tuple[str, ...], expected: list[str]) -> None:
    parsed = captions.parse(cues(*texts))
    assert parsed.problems == parsed.remarks == []
    [transcript] = parsed.transcripts
    assert [entry.text for entry in transcript.segments] == expected


def test_rolling_keeps_the_voice() -> None:
    [transcript] = captions.parse(cues("<v Ann>one", "<v Ann>one\ntwo", "<v Ann>two\nthree")).transcripts
    assert {entry.speaker for entry in transcript.segments} == {"Ann"}

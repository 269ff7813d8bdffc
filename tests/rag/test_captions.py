"""SubRip and WebVTT as they lie about, and the speakers in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.rag.ingest.captions import parse
from chat.rag.ingest.parsed_file import ParsedFile
from chat.rag.records import SegmentIn

TIMES = "00:00:01,000 --> 00:00:02,500"


def cues_of(text: str) -> list[tuple[str, str]]:
    """(speaker, text) of every segment; there must be no problem."""
    parsed = parse(text)
    assert parsed.problems == []
    return [(entry.speaker, entry.text) for entry in segments(parsed)]


def segments(parsed: ParsedFile) -> list[SegmentIn]:
    return [entry for transcript in parsed.transcripts for entry in transcript.segments]


def times(text: str) -> list[tuple[float | None, float | None]]:
    [transcript] = parse(text).transcripts
    return [(entry.start_secs, entry.end_secs) for entry in transcript.segments]


def problems(text: str) -> list[str]:
    return [str(problem) for problem in parse(text).problems]


GOOD_SRT = """1
00:00:01,000 --> 00:00:02,500
Sarah: We cannot make the first.

2
00:00:03,000 --> 00:00:04,000
John: Then the deadline
moves to Friday.
"""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_subrip_with_any_line_end(end: str) -> None:
    assert cues_of(GOOD_SRT.replace("\n", end)) == [
        ("Sarah", "We cannot make the first."),
        ("John", "Then the deadline moves to Friday."),
    ]
    assert times(GOOD_SRT) == [(1.0, 2.5), (3.0, 4.0)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no counters", f"{TIMES}\none\n\n{TIMES}\ntwo\n"),
        ("no blank line between", f"1\n{TIMES}\none\n2\n{TIMES}\ntwo\n"),
        ("no end of the last line", f"1\n{TIMES}\none\n\n2\n{TIMES}\ntwo"),
        ("blank lines before and within", f"\n\n1\n{TIMES}\n\none\n\n\n2\n{TIMES}\n\n\ntwo\n\n"),
        ("counters that repeat", f"7\n{TIMES}\none\n\n7\n{TIMES}\ntwo\n"),
        ("a mark at the beginning", f"\ufeff1\n{TIMES}\none\n\n2\n{TIMES}\ntwo\n"),
        ("tags and positions", f"1\n{TIMES}\n{{\\an8}}<i>one</i>\n\n2\n{TIMES}\n<font color='red'>two</font>\n"),
        ("a heading", f"Subtitles by nobody\n\n1\n{TIMES}\none\n\n2\n{TIMES}\ntwo\n"),
    ],
)
def test_nasty_subrip(name: str, text: str) -> None:
    assert cues_of(text) == [("", "one"), ("", "two")]


def test_overlapping_cues_are_both_kept() -> None:
    text = "1\n00:00:01,000 --> 00:00:09,000\none\n\n2\n00:00:02,000 --> 00:00:03,000\ntwo\n"
    assert times(text) == [(1.0, 9.0), (2.0, 3.0)]


@pytest.mark.parametrize(
    ("written", "start"),
    [
        ("100:00:00,000 --> 123:00:00,000", 360_000.0),
        ("01:02.5 --> 99:00", 62.5),
        ("00:00:01.5 --> 00:00:02", 1.5),
        ("00:00:01,050 --> 00:00:02,000 align:start position:0%", 1.05),
        ("  0:00:01,000-->0:00:02,000", 1.0),
    ],
)
def test_times(written: str, start: float) -> None:
    assert times(f"1\n{written}\none\n")[0][0] == start


def test_what_cannot_be_taken_in_is_told_by_its_line_and_the_rest_goes_on() -> None:
    text = "1\n00:00:xx,000 --> 00:00:02,000\nlost\n\n2\n00:00:05,000 --> 00:00:01,000\nkept without an end\n\n"
    text += f"3\n{TIMES}\n<i></i>\n\n"
    parsed = parse(text + f"4\n{TIMES}\nkept\n")
    assert [entry.where for entry in parsed.problems] == ["line 2"]
    assert [entry.text for entry in parsed.problems] == [
        "invalid times: '00:00:xx,000 --> 00:00:02,000'",
    ]
    assert [str(entry) for entry in parsed.remarks] == [
        "line 6: impossible times, dropped: '00:00:05,000 --> 00:00:01,000'",
        "line 10: the cue has no text",
    ]
    segments = [(entry.text, entry.start_secs, entry.end_secs) for entry in parsed.transcripts[0].segments]
    assert segments == [("kept without an end", 5.0, None), ("kept", 1.0, 2.5)]


def test_a_megabyte_in_one_cue() -> None:
    assert problems(f"1\n{TIMES}\n{'x' * 1_000_000}\n") == [
        "line 2: the cue has 1,000,000 characters; at most 100,000 are allowed"
    ]


def test_webvtt_in_all_its_parts() -> None:
    text = """WEBVTT - a meeting
Kind: captions

NOTE
This --- is for
editors.

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.000 line:0
<v Sarah Miller>We <c.loud>cannot</c> make <00:00:01.500>the <b>first</b> &amp; second.</v>

00:02.000 --> 00:03.000
<v.loud John>So what?
<v Sarah Miller>A < b and c > d, I <3 it.

NOTE the end
"""
    assert cues_of(text) == [
        ("Sarah Miller", "We cannot make the first & second."),
        ("John", "So what?"),
        ("Sarah Miller", "A < b and c > d, I <3 it."),
    ]
    assert times(text) == [(1.0, 2.0), (2.0, 3.0), (2.0, 3.0)]


def cues(*texts: str) -> str:
    return "\n".join(f"{TIMES}\n{text}\n" for text in texts)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("[Sarah] Hello.", "[John]: Hi."), [("Sarah", "Hello."), ("John", "Hi.")]),
        (("SPEAKER_00: Hello.", "speaker 1: Hi."), [("SPEAKER_00", "Hello."), ("speaker 1", "Hi.")]),
        (("- Sarah: Hello.\n- John: Hi.",), [("Sarah", "Hello."), ("John", "Hi.")]),
        (("Ursula von der Leyen: Hello.",), [("Ursula von der Leyen", "Hello.")]),
        (("\u7530\u4e2d\uff1a \u3053\u3093\u306b\u3061\u306f",), [("\u7530\u4e2d", "\u3053\u3093\u306b\u3061\u306f")]),
        (("Sarah: Note: it is late.",), [("Sarah", "Note: it is late.")]),
        (("I told him: no.", "It is 10:30 now."), [("", "I told him: no."), ("", "It is 10:30 now.")]),
        (("one", "two", "Note: bring cake."), [("", "one"), ("", "two"), ("", "Note: bring cake.")]),
        (
            ("Sarah: one", "two", "three", "Sarah: four"),
            [("Sarah", "one"), ("", "two"), ("", "three"), ("Sarah", "four")],
        ),
        (("[laughs] Right.", "[Music]"), [("", "[laughs] Right."), ("", "[Music]")]),
    ],
)
def test_speakers(texts: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    assert cues_of(cues(*texts)) == expected


@given(st.text(st.sampled_from("0123:,.-> \n\rAaWEBVTTNOTE<v/>&{}[]\ufeff\0\u2028"), max_size=200))
def test_any_text_is_parsed_or_told(text: str) -> None:
    parsed = parse(text)
    assert all(entry.text and entry.text == entry.text.strip() for entry in segments(parsed))

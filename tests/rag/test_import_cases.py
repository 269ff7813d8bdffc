"""Files as other programs write them: nothing that was said is lost, and what is left out is reported."""

import json
import os
from pathlib import Path

import pytest

from chat.rag.ingest import captions, prose
from chat.rag.ingest.formats import parse, read
from chat.rag.ingest.json_files import parse_object
from chat.rag.ingest.parsed_file import FileUnreadable, ParsedFile
from chat.rag.models import Segment, Transcript
from chat.rag.query import SourceFilters
from tests.rag.builders import ask, texts
from tests.rag.test_import_memories import imports

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("words_as_vectors")]


def spoken(parsed: ParsedFile) -> list[str]:
    assert parsed.problems == []
    return [segment.text for transcript in parsed.transcripts for segment in transcript.segments]


def rows(*texts: str, **fields: object) -> str:
    return "".join(json.dumps({"text": text, "speaker": "Ann"} | fields) + "\n" for text in texts)


class TestSessions:
    def test_two_files_of_one_session_are_two_recordings(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(rows("one", session_id="s"))
        (tmp_path / "b.jsonl").write_text(rows("two", session_id="s"))
        assert imports(tmp_path)[0] == 0
        assert set(Segment.objects.values_list("text", flat=True)) == {"one", "two"}
        assert set(Transcript.objects.values_list("session_id", flat=True)) == {"s"}
        assert "2 transcripts and notes unchanged" in imports(tmp_path)[1]

    def test_two_sessions_in_one_file_are_two_recordings(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text(rows("one", session_id="s") + rows("two", session_id="t") + rows("three"))
        imports(path)
        assert Transcript.objects.count() == 3
        path.write_text(rows("one", session_id="s"))
        imports(path)
        assert list(Segment.objects.values_list("text", flat=True)) == ["one"]

    def test_a_job_is_a_recording_in_whichever_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(rows("old", job_id="j", session_id="s"))
        (tmp_path / "b.jsonl").write_text(rows("new", job_id="j", session_id="s"))
        imports(tmp_path)
        assert list(Segment.objects.values_list("text", flat=True)) == ["new"]


@pytest.mark.parametrize("header", ["WEBVTT", "\ufeffWEBVTT - talk", "WEBVTT\nKind: captions", "NOTE hello"])
@pytest.mark.parametrize("counter", ["", "1\n"])
def test_a_cue_right_below_the_header(header: str, counter: str) -> None:
    text = f"{header}\n{counter}00:01.000 --> 00:02.000\nfirst\n\n00:03.000 --> 00:04.000\nsecond\n"
    assert spoken(captions.parse(text)) == ["first", "second"]


def test_a_header_without_a_cue_is_no_text() -> None:
    assert spoken(captions.parse("WEBVTT\n\nNOTE\nnothing\n\nSTYLE\n::cue {}\n\n00:01.0 --> 00:02.0\none\n")) == ["one"]


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("00:00:05.000 --> 00:00:01.000", 5.0, None),
        ("-00:00:05.000 --> 00:00:01.000", None, None),
        ("00:00:01.000 --> 00:00:02.000line:40%", 1.0, 2.0),
        ("00:00:01.123456 --> 00:00:02.5", 1.123456, 2.5),
        ("00:00:01.000 --> 00:00:02.000 align:start", 1.0, 2.0),
    ],
)
def test_times_cost_no_text(times: str, start: float | None, end: float | None) -> None:
    parsed = captions.parse(f"WEBVTT\n\n{times}\nkept\n")
    assert spoken(parsed) == ["kept"]
    [segment] = parsed.transcripts[0].segments
    assert (segment.start_secs, segment.end_secs) == (start, end)
    assert bool(parsed.remarks) == (end is None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\n{}\n4200\n\n2\n{}\nnext\n", ["4200", "next"]),
        ("1\n{}\nit costs\n\n4200\n\n2\n{}\nnext\n", ["it costs 4200", "next"]),
        ("1\n\n{}\none\n\n2\n\n{}\ntwo\n", ["one", "two"]),
    ],
)
def test_numbers_that_are_spoken(text: str, expected: list[str]) -> None:
    times = "00:00:01,000 --> 00:00:02,000"
    assert spoken(captions.parse(text.format(times, times))) == expected


class TestSilence:
    def test_an_empty_segment_costs_no_others(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"segments": [{"text": "one"}, {"text": " "}, {"text": "two"}]}))
        status, out, err = imports(path)
        assert (status, "2 segments" in out) == (0, True)
        assert "segments[1]: has no text" in err

    def test_nor_does_an_empty_row(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text(rows("one", "", "two"))
        assert imports(path)[0] == 0
        assert Segment.objects.count() == 2

    def test_an_empty_note_is_a_problem(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text('{"title": "T", "body": ""}\n{"title": "T", "body": "b"}\n')
        assert imports(path)[0] == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"duration": "4.0"}, ""),
        ({"duration": "long"}, "duration"),
        ({"date": "03/05/2024"}, "date"),
        ({"title": ["a"]}, "title"),
        ({"job_id": {}}, "job_id"),
    ],
)
def test_a_field_costs_no_text(fields: dict[str, object], named: str) -> None:
    parsed = parse_object(json.dumps({"segments": [{"text": "kept"}]} | fields))
    assert spoken(parsed) == ["kept"]
    assert [named in str(remark) for remark in parsed.remarks] == ([True] if named else [])


@pytest.mark.parametrize(
    ("value", "secs"),
    [("0.000", 0.0), ("00:00:02.500", 2.5), ("1:02:03", 3723.0), ("02:03,5", 123.5), (4, 4.0), (" 7.5 ", 7.5)],
)
def test_numbers_as_texts(value: object, secs: float) -> None:
    [transcript] = parse_object(json.dumps({"segments": [{"text": "x", "start": value, "speaker": 1.0}]})).transcripts
    assert (transcript.segments[0].start_secs, transcript.segments[0].speaker) == (secs, "1")


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    def test_marks(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "a.txt"
        path.write_text("M\u00fcller: \u4f60\u597d", encoding=encoding)
        assert read(path) == ("M\u00fcller: \u4f60\u597d", 0)

    @pytest.mark.parametrize(
        ("encoding", "text"),
        [("windows-1252", "K\u00e4se f\u00fcr 4\u20ac"), ("gb2312", "\u4f60\u597d"), ("shift_jis", "\u3042")],
    )
    def test_by_name(self, tmp_path: Path, encoding: str, text: str) -> None:
        path = tmp_path / "a.txt"
        path.write_text(text, encoding=encoding)
        assert read(path, encoding) == (text, 0)
        with pytest.raises(FileUnreadable, match="--encoding"):
            read(path)
        assert imports(path, "--encoding", encoding)[0] == 0

    def test_one_bad_byte_is_one_replaced_character(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(b"word " * 50 + b"\x80" + b" word" * 50)
        status, _, err = imports(path)
        assert (status, "1 damaged characters were replaced" in err) == (0, True)

    @pytest.mark.parametrize("text", ["Größe, Käse, Öl, Übung, Äpfel, Süße", "你好，我们明天见面吧", "Привет"])
    def test_a_bad_byte_in_a_short_text(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(f"{text * 2} ".encode() + b"\xe9 end")
        assert read(path) == (f"{text * 2} \ufffd end", 1)


@pytest.mark.parametrize("arrow", ["->", "\u2014>", "\u2013>", "\u2192", " - ", "--->", "-->"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_arrows_of_word_processors(arrow: str, end: str) -> None:
    cues = ["1", f"00:00:01,000 {arrow} 00:00:02,000", "first", "", "2", f"0:03.5{arrow}0:04.5", "second -> 5", ""]
    parsed = captions.parse(end.join(cues))
    assert spoken(parsed) == ["first", "second -> 5"]
    assert [(entry.start_secs, entry.end_secs) for entry in parsed.transcripts[0].segments] == [(1, 2), (3.5, 4.5)]


@pytest.mark.parametrize("name", ["2026-03-02.vtt", "2026-03-02.jsonl"])
def test_a_long_recording_is_one(tmp_path: Path, name: str) -> None:
    lines = [f"number {n}" if n else "kangaroos arrived" for n in range(2_100)]
    clock = [f"{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}" for n in range(len(lines))]
    cues = [f"{at}.000 --> {at}.900\n{line}" for at, line in zip(clock, lines, strict=True)]
    (tmp_path / name).write_text("\n\n".join(["WEBVTT", *cues]) if name.endswith("vtt") else rows(*lines, job_id="j"))
    (tmp_path / "2026-03-01.txt").write_text("Ann: kangaroos left\nBob: yes\n")
    assert imports(tmp_path)[0] == 0
    assert Transcript.objects.count() == 2
    found = texts(ask("kangaroos", filters=SourceFilters(last_n_transcripts=1)))
    assert found[0] == "kangaroos arrived"
    assert "kangaroos left" not in found


@pytest.mark.parametrize("label", ["[Music]", "[Applause]", "Date:", "Attendees:", "MUSIC:"])
def test_labels_that_are_no_names(label: str) -> None:
    parsed = prose.parse_text(f"Ann: Welcome.\n{label} yes\nBob: Thanks.\n{label} no\nAnn: Bye.\n")
    assert {segment.speaker for segment in parsed.transcripts[0].segments} == {"Ann", "Bob"}


def test_a_touched_file_with_a_job_keeps_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"job_id": "j", "segments": [{"text": "x"}]}))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    imports(path)
    before = Transcript.objects.get().created_at
    os.utime(path)
    assert "1 transcripts and notes unchanged" in imports(path)[1]
    path.write_text(json.dumps({"job_id": "j", "segments": [{"text": "y"}]}))
    imports(path)
    assert Transcript.objects.get().created_at == before


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "\0"])
def test_a_job_id_that_no_database_stores(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"job_id": name, "segments": [{"text": "x"}]}))
    [transcript] = parse(read(path)[0], path).transcripts
    assert transcript.job_id == name.replace("\0", "").replace("\ud800", "?")

"""JSON in its dialects, Markdown and plain text; which format a file has; and when it was recorded."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat.rag.ingest import json_files, prose
from chat.rag.ingest.dates import moment_in_name, moment_of
from chat.rag.ingest.formats import FileFormat, detect, parse, read
from chat.rag.ingest.parsed_file import FileUnreadable, ParsedFile

MARCH = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)


def lines(*rows: object) -> ParsedFile:
    return json_files.parse_lines("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in rows))


def one_object(data: object) -> ParsedFile:
    return json_files.parse_object(json.dumps(data))


def problems(parsed: ParsedFile) -> list[str]:
    return [str(problem) for problem in parsed.problems]


class TestWhisper:
    def test_words_are_left_out(self) -> None:
        words = [{"word": "Hello", "start": 0.1, "score": 0.9}]
        data = {
            "segments": [{"start": 0.1, "end": 1.5, "text": " Hello.", "speaker": "SPEAKER_00", "words": words}],
            "word_segments": words,
            "language": "en",
        }
        [transcript] = one_object(data).transcripts
        [segment] = transcript.segments
        assert (segment.text, segment.speaker, segment.start_secs, segment.end_secs) == (
            "Hello.",
            "SPEAKER_00",
            0.1,
            1.5,
        )
        assert transcript.job_id == ""

    def test_without_speakers_and_times(self) -> None:
        [transcript] = one_object(
            {"text": "a b", "segments": [{"text": "a"}, {"text": "b", "start": None}]}
        ).transcripts
        assert [(entry.text, entry.speaker, entry.start_secs) for entry in transcript.segments] == [
            ("a", "", None),
            ("b", "", None),
        ]
        assert transcript.full_text == "a b"

    def test_the_body_of_an_index_call(self) -> None:
        segment = {
            "text": "x",
            "speaker": "S",
            "start_time": 1,
            "end_time": 2,
            "emotion": "calm",
            "emotion_confidence": 0.5,
        }
        data = {"job_id": "j1", "session_id": "s1", "audio_duration": 60, "created_at": MARCH.isoformat()}
        [transcript] = one_object(data | {"segments": [segment]}).transcripts
        assert (transcript.job_id, transcript.session_id, transcript.duration_secs) == ("j1", "s1", 60.0)
        assert transcript.recorded_at == MARCH
        assert (transcript.segments[0].emotion, transcript.segments[0].emotion_confidence) == ("calm", 0.5)

    def test_bad_segments_are_told_and_the_others_kept(self) -> None:
        parsed = one_object(
            {"segments": [{"text": ""}, 7, {"text": "x", "start": "soon"}, {"text": "kept"}, {"start": 1}]}
        )
        assert problems(parsed) == ["segments[1]: is not a JSON object"]
        assert [str(remark) for remark in parsed.remarks] == [
            "segments[0]: has no text",
            'segments[2]: "start" must be a number; left out',
            "segments[4]: has no text",
        ]
        assert [entry.text for entry in parsed.transcripts[0].segments] == ["x", "kept"]

    @pytest.mark.parametrize("text", ["", "{", "7", '"x"', '{"segments": 7}'])
    def test_what_is_no_recording(self, text: str) -> None:
        with pytest.raises(FileUnreadable):
            json_files.parse_object(text)


class TestRows:
    def test_segments_of_a_recording_are_joined_and_memories_are_notes(self) -> None:
        parsed = lines(
            {"job_id": "a", "text": "one", "speaker": "Sarah", "start_time": 0, "created_at": MARCH.isoformat()},
            {"title": "Budget", "body": "approved", "metadata": {"by": "John"}, "created_at": "2026-02-01"},
            {"job_id": "b", "text": "three", "speaker": "John"},
            {"job_id": "a", "text": "two", "speaker": "John", "start_time": 5, "created_at": MARCH.isoformat()},
            "",
            {"text": "no more than a text"},
        )
        assert parsed.problems == []
        assert [(t.job_id, [s.text for s in t.segments], t.recorded_at) for t in parsed.transcripts] == [
            ("a", ["one", "two"], MARCH),
            ("b", ["three"], None),
        ]
        budget, bare = parsed.notes
        assert (budget.title, budget.body, budget.metadata) == ("Budget", "approved", {"by": "John"})
        assert budget.created_at == datetime(2026, 2, 1, tzinfo=UTC)
        assert (bare.title, bare.body) == ("", "no more than a text")

    def test_lines_with_an_hour_but_no_place(self) -> None:
        [transcript] = lines(
            {"text": "one", "speaker": "Sarah", "created_at": "2026-03-01T14:05:00Z"},
            {"text": "two", "speaker": "John", "created_at": "2026-03-01T14:05:30+00:00"},
        ).transcripts
        assert [entry.start_secs for entry in transcript.segments] == [0.0, 30.0]
        assert transcript.recorded_at == MARCH

    def test_search_results_come_back_in(self) -> None:
        hit = {"id": "s", "text": "x", "type": "transcript_segment", "score": 0.9}
        fields = {"speaker": "Sarah", "job_id": "j", "start_time": 3.5, "created_at": MARCH.isoformat()}
        note = {"id": "m", "text": "T: b", "type": "memory", "metadata": {"memory_id": "m", "title": "T", "body": "b"}}
        parsed = one_object({"success": True, "results": [hit | {"metadata": fields}, note]})
        assert (parsed.transcripts[0].job_id, parsed.transcripts[0].segments[0].start_secs) == ("j", 3.5)
        assert (parsed.notes[0].title, parsed.notes[0].body) == ("T", "b")

    def test_what_is_wrong_is_told_by_its_line(self) -> None:
        parsed = lines(
            {"text": "kept", "speaker": "S"}, "{", "[]", {"speaker": "S"}, {"title": "T"}, {"text": 5}, '{"a": nan}'
        )
        complaints = problems(parsed)
        assert [entry.partition(":")[0] for entry in complaints] == ["line 2", "line 3", "line 5", "line 7"]
        assert complaints[0].startswith("line 2: is not JSON")
        assert complaints[1:3] == ["line 3: is not a JSON object", "line 5: has no text"]
        assert [str(remark) for remark in parsed.remarks] == ["line 4: has no text"]
        assert [note.body for note in parsed.notes] == ["5"]

    @pytest.mark.parametrize(
        "row",
        [
            {"text": ["a"]},
            {"text": "x" * 100_001},
            ["text", "x"],
        ],
    )
    def test_one_bad_row(self, row: object) -> None:
        parsed = lines(row, {"text": "kept"})
        assert len(parsed.problems) == 1
        assert len(parsed.notes) == 1

    @pytest.mark.parametrize(
        ("row", "named"),
        [
            ({"text": "x", "start": float("1e400")}, "start"),
            ({"text": "x", "start": True}, "start"),
            ({"text": "x", "speaker": {"name": "S"}}, "speaker"),
            ({"text": "x", "speaker": "S", "created_at": "yesterday"}, "created_at"),
            ({"text": "x", "speaker": "S", "date": "03/05/2024"}, "date"),
            ({"text": "x", "speaker": "S", "emotion_scores": [1]}, "emotion_scores"),
            ({"text": "x", "speaker": "S", "start": 10**400}, "start"),
            ({"text": "x", "speaker": "S", "job_id": ["j"]}, "job_id"),
            ({"title": 1.5, "body": "x", "metadata": [1], "created_at": "soon"}, "created_at"),
        ],
    )
    def test_a_bad_field_costs_no_text(self, row: dict[str, object], named: str) -> None:
        parsed = lines(row, {"job_id": "other", "text": "kept"})
        assert parsed.problems == []
        texts = [entry.text for one in parsed.transcripts for entry in one.segments]
        assert sorted([*texts, *(note.body for note in parsed.notes)]) == ["kept", "x"]
        assert any(f'"{named}"' in str(remark) for remark in parsed.remarks)

    @given(
        st.lists(
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.text(max_size=9),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            ["text", "body", "speaker", "start", "created_at", "metadata", "job_id", "type"]
                        ),
                        inner,
                        max_size=4,
                    )
                ),
                max_leaves=8,
            ),
            max_size=5,
        )
    )
    @example(["0\n0"])
    def test_any_rows_are_taken_or_told(self, rows: list[object]) -> None:
        parsed = lines(*rows)
        n_taken = sum(len(entry.segments) for entry in parsed.transcripts) + len(parsed.notes)
        # A text is a row as it is, and several where it has line breaks.
        written = [line for row in rows for line in (row.split("\n") if isinstance(row, str) else [json.dumps(row)])]
        left_out = [remark for remark in parsed.remarks if not str(remark).endswith("left out")]
        assert n_taken + len(parsed.problems) + len(left_out) == sum(bool(line.strip()) for line in written)


class TestMarkdown:
    def test_a_note_per_heading(self) -> None:
        code = "```sh\n# no heading\n```"
        text = f"before\n\n# Plan\n\n## Budget ##\nIt is **approved**.\n\n{code}\n\n## Dates\n\nFriday.\n# Other\nEnd."
        assert [(note.title, note.body) for note in prose.parse_markdown(text).notes] == [
            ("", "before"),
            ("Plan / Budget", "It is **approved**.\n\n```sh\n# no heading\n```"),
            ("Plan / Dates", "Friday."),
            ("Other", "End."),
        ]

    def test_front_matter(self) -> None:
        text = '---\ntitle: "Kick-off"\ntags: [a]\ndate: 2026-03-01T14:05\n---\nHello.\n## Next\nMore.\n'
        notes = prose.parse_markdown(text).notes
        assert [(note.title, note.body, note.created_at) for note in notes] == [
            ("Kick-off", "Hello.", MARCH),
            ("Kick-off / Next", "More.", MARCH),
        ]

    def test_a_rule_is_no_front_matter(self) -> None:
        assert prose.parse_markdown("---\nHello.").notes[0].body == "---\nHello."


class TestText:
    def test_a_note_per_paragraph(self) -> None:
        notes = prose.parse_text("One\nline.\r\n\r\n\r\nTwo: lines.\n").notes
        assert [note.body for note in notes] == ["One\nline.", "Two: lines."]

    def test_minutes_with_names_are_a_transcript(self) -> None:
        [transcript] = prose.parse_text("Sarah: Hello.\nJohn: Hi.\n\nSarah: So, the\ndeadline.\n").transcripts
        assert [(entry.speaker, entry.text) for entry in transcript.segments] == [
            ("Sarah", "Hello."),
            ("John", "Hi."),
            ("Sarah", "So, the deadline."),
        ]

    def test_a_megabyte_is_told(self) -> None:
        parsed = prose.parse_text(f"one\n\n{'x' * 1_000_000}\n\ntwo")
        assert problems(parsed) == ["line 3: the note has 1,000,000 characters; at most 100,000 are allowed"]
        assert len(parsed.notes) == 2


SRT = "1\n00:00:01,000 --> 00:00:02,000\nHello.\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.srt", SRT, FileFormat.SRT),
        ("a.txt", SRT, FileFormat.SRT),
        ("a", "\ufeffWEBVTT\n\n", FileFormat.VTT),
        ("a.srt", "WEBVTT\n\n", FileFormat.VTT),
        ("a.md", "1. --> x", FileFormat.MARKDOWN),
        ("a.MARKDOWN", "# x", FileFormat.MARKDOWN),
        ("a.json", '{"segments": []}', FileFormat.JSON),
        ("a.json", '{"text": "x"}\n{"text": "y"}', FileFormat.JSONL),
        ("a.jsonl", '{"text": "x"}', FileFormat.JSONL),
        ("a.jsonl", '{\n  "segments": []\n}', FileFormat.JSON),
        ("a.ndjson", "rubbish", FileFormat.JSONL),
        ("a", '{"text": "x"}\n{"text": "y"}\n', FileFormat.JSONL),
        ("a", "[\n{}\n]", FileFormat.JSON),
        ("a.log", "Hello.", FileFormat.TEXT),
        ("a.txt", "", FileFormat.TEXT),
    ],
)
def test_which_format(name: str, text: str, expected: FileFormat) -> None:
    assert detect(text, Path(name)) is expected


@pytest.mark.parametrize(
    ("data", "complaints"),
    [
        (b"\x80abc", "is not UTF-8 (byte 0)"),
        (b"PK\x03\x04\0\0", "is not a text file"),
        (b"\xff\xfea", "is not UTF-16 (byte 2)"),
    ],
)
def test_what_is_no_text(data: bytes, complaints: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(FileUnreadable, match=complaints.replace("(", r"\(").replace(")", r"\)")):
        read(path)


def test_marks_of_unicode_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text(SRT.replace("Hello", "Gr\u00fc\u00dfe"), encoding=encoding)
        assert parse(read(path)[0], path).transcripts[0].segments[0].text == "Gr\u00fc\u00dfe."


def test_nothing_in_it() -> None:
    for form in FileFormat:
        with pytest.raises(FileUnreadable):
            parse("\n", Path("a"), form)


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("2026-03-01 standup", datetime(2026, 3, 1, tzinfo=UTC)),
        ("standup_20260301_1405", MARCH),
        ("call-2026-03-01T14-05-00", MARCH),
        ("2026.03.01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-13-45 then 2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01_9999", datetime(2026, 3, 1, tzinfo=UTC)),
        ("invoice 123456789", None),
        ("99999999", None),
        ("2026-0301", None),
        ("\u0662\u0660\u0662\u0666-\u0660\u0663-\u0660\u0661", datetime(2026, 3, 1, tzinfo=UTC)),
        ("", None),
    ],
)
def test_the_date_in_a_name(name: str, moment: datetime | None) -> None:
    assert moment_in_name(name) == moment


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-03-01T14:05:00Z", MARCH),
        ("2026-03-01T15:05:00+01:00", MARCH),
        (MARCH.timestamp(), MARCH),
        (int(MARCH.timestamp() * 1000), MARCH),
        (12.5, None),
        (True, None),
        (1e300, None),
        ("soon", None),
        (None, None),
    ],
)
def test_moments(value: object, moment: datetime | None) -> None:
    assert moment_of(value) == moment

"""Files to import, drawn for every format: memories whose texts can be stored, or the reason why there are none."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.rag.indexing.row_builders import note_row, segment_rows, transcript_row
from chat.rag.ingest.formats import BY_SUFFIX, FileFormat, parse, read
from chat.rag.ingest.parsed_file import FileUnreadable
from tests.faults.fuzzing import DATES, NUMBERS, TEXTS
from tests.parsers.drawing import DEEP, N_EXAMPLES, drawn, edited, foreign_json, is_storable, objects

SAMPLES: dict[str, list[bytes]] = {
    ".srt": [b"1\n00:00:01,000 --> 00:00:02,500\nSarah: Hello\n\n2\n00:00:03,000 --> 00:00:04,000\n<i>You</i>\n"],
    ".vtt": [
        b"WEBVTT - x\n\nNOTE y\n\n00:01.000 --> 00:02.000 align:start\n<v.loud Sarah>Hello</v>\n\n"
        b"00:02.000 --> 00:03.000\n<c>Hello</c>\nyou &amp; <00:00:02.500>me\n"
    ],
    ".sbv": [b"0:00:01.000,0:00:02.000\nHello\n\n0:00:03.000,0:00:04.000\n>> JOHN: you\n"],
    ".lrc": [b"[ti:Song]\n[00:01.00]Hello\n[00:02.50][00:09.00]you\n[offset:+100]\n"],
    ".ttml": [
        b'<?xml version="1.0"?><tt xmlns="http://www.w3.org/ns/ttml"><body><div>'
        b'<p begin="1s" end="2s">Hello<br/>you</p><p begin="00:00:03.5" dur="500ms">me</p></div></body></tt>',
        b'<?xml version="1.0"?><!DOCTYPE tt [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><tt><p>&b;</p></tt>',
        b'<!DOCTYPE tt [<!ENTITY a SYSTEM "file:///etc/passwd">]><tt><p begin="1s">&a;</p></tt>',
    ],
    ".ass": [
        b"[Script Info]\nTitle: x\n\n[Events]\nFormat: Layer, Start, End, Style, Name, Text\n"
        b"Dialogue: 0,0:00:01.00,0:00:02.00,Default,Sarah,{\\i1}Hello\\Nyou\n"
    ],
    ".csv": [
        b'speaker,text,start,created_at\nSarah,"Hello, ""you""",1.5,2026-03-01\nJohn,"me\nand",x,\n',
        b"text;a\nx;y\n",
    ],
    ".md": [
        b"---\ntitle: Notes\ndate: 2026-03-01\n---\n# One\nSarah: hello\n\n- a\n\n```\ncode\n```\n",
        b"+++\ntitle = 'x'\n+++\ntext\n",
        b"---\na: &a [x]\nb: &b [*a, *a, *a]\ntitle: *b\ndate: !!timestamp x\n---\ntext\n",
    ],
    ".txt": [b"[14:05] Sarah: Hello\n[14:06] John: you\n\nSarah (00:01:02): me\n", b"Speaker 1\n0:01\nHello\n\n" * 3],
    ".rttm": [b"SPEAKER x 1 0.0 1.0 <NA> <NA> Sarah <NA> <NA>\n"],
}
FIELDS = ["text", "body", "title", "speaker", "start", "end", "start_time", "created_at", "metadata", "job_id", "type"]
FIELDS += ["session_id", "emotion", "emotion_scores", "audio_metrics", "segments", "results", "full_text", "words"]
FIELDS += ["chunks", "timestamp", "utterances", "monologues", "transcription", "results", "channels", "alternatives"]
FIELD_VALUES = TEXTS | NUMBERS | DATES
rows = objects(
    FIELDS, FIELD_VALUES | st.lists(objects(FIELDS, FIELD_VALUES), max_size=2) | objects(FIELDS, FIELD_VALUES)
)
JSON_FILES = foreign_json(rows) | foreign_json(st.lists(rows, max_size=2)) | st.sampled_from(DEEP)
JSON_LINES = st.lists(JSON_FILES, max_size=3).map(b"\n".join)
MARKS = st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff"])


def contents(suffix: str) -> st.SearchStrategy[bytes]:
    if suffix in (".json", ".jsonl", ".ndjson"):
        return JSON_FILES | JSON_LINES
    form = BY_SUFFIX[suffix]
    alike = next(samples for name, samples in SAMPLES.items() if BY_SUFFIX[name] is form)
    return edited(alike)


def texts_in(value: Any) -> list[str]:  # noqa: ANN401
    if isinstance(value, dict):
        return [text for name, member in value.items() for text in [*texts_in(name), *texts_in(member)]]
    if isinstance(value, list | tuple):
        return [text for member in value for text in texts_in(member)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("suffix", BY_SUFFIX)
def test_every_format(tmp_path: Path, suffix: str) -> None:
    n_read = 0

    @drawn
    @given(st.builds(lambda mark, data: mark + data, MARKS, contents(suffix)))
    def one(data: bytes) -> None:
        nonlocal n_read
        n_read += is_imported(tmp_path / f"drawn{suffix}", data)

    one()
    assert n_read > N_EXAMPLES // 200 or suffix == ".rttm", "hardly any file was read"


@drawn
@given(
    st.binary(max_size=200) | edited([sample for samples in SAMPLES.values() for sample in samples]),
    st.sampled_from(FileFormat),
)
def test_any_file_read_as_any_format(tmp_path_factory: pytest.TempPathFactory, data: bytes, form: FileFormat) -> None:
    is_imported(tmp_path_factory.getbasetemp() / "drawn.xyz", data, form)


def is_imported(path: Path, data: bytes, form: FileFormat | None = None) -> bool:
    """Read the file as the importer does, and look at the rows that would be stored."""
    path.write_bytes(data)
    try:
        text, _ = read(path)
        parsed = parse(text, path, form)
    except FileUnreadable as error:
        assert str(error)
        return False
    for transcript in parsed.transcripts:
        row = transcript_row("owner", transcript)
        for model in (row, *segment_rows(row, transcript)):
            assert_storable(model)
        assert len(transcript.digest) == 64
    for note in parsed.notes:
        assert_storable(note_row("owner", note))
    for remark in [*parsed.problems, *parsed.remarks]:
        assert len(str(remark)) < 2_000
    assert "root:" not in str([asdict(note) for note in parsed.notes])
    return True


def assert_storable(model: Any) -> None:  # noqa: ANN401
    for column in model._meta.concrete_fields:
        value = getattr(model, column.attname)
        assert all(map(is_storable, texts_in(value))), (column.name, value)
        if column.max_length and isinstance(value, str):
            assert len(value) <= column.max_length, (column.name, value)

"""`manage.py import_memories`: files into the store, again without doubling, and what is said about it."""

import io
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django import Settings

from chat.rag.indexing import indexer
from chat.rag.models import Note, Segment, Transcript

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

SRT = (
    "1\n00:00:01,000 --> 00:00:02,000\nSarah: The deadline moves.\n\n2\n00:00:03,000 --> 00:00:04,000\nJohn: To when?\n"
)
MARKDOWN = "# Budget\napproved\n\n# Dates\nFriday\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    (tmp_path / "2026-03-01 standup.srt").write_text(SRT)
    (tmp_path / "deep" / "notes.md").write_text(MARKDOWN)
    (tmp_path / "deep" / "recording.mp3").write_bytes(b"\0\1")
    (tmp_path / "deep" / ".hidden" / "x.md").write_text("hidden")
    return tmp_path


def imports(*args: object) -> tuple[int, str, str]:
    """Exit status, what was printed, what was complained about."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("import_memories", *map(str, args), stdout=out, stderr=err, no_color=True)
    except SystemExit as ended:
        return int(str(ended.code)), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_a_folder_and_once_more(folder: Path) -> None:
    status, out, err = imports(folder)
    assert (status, err) == (0, "")
    assert "2 files: 2 segments and 2 notes imported, 0 transcripts and notes unchanged, 0 removed." in out
    assert "1 files of other formats were skipped." in out
    transcript = Transcript.objects.get()
    assert (transcript.owner, transcript.title) == ("", "2026-03-01 standup")
    assert transcript.created_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert list(transcript.segments.values_list("speaker", "text", "start_secs")) == [
        ("Sarah", "The deadline moves.", 1.0),
        ("John", "To when?", 3.0),
    ]
    assert set(Note.objects.values_list("title", "body")) == {("Budget", "approved"), ("Dates", "Friday")}
    ids = set(Segment.objects.values_list("pk", flat=True)) | set(Note.objects.values_list("pk", flat=True))

    assert "0 segments and 0 notes imported, 3 transcripts and notes unchanged, 0 removed." in imports(folder)[1]
    assert ids == set(Segment.objects.values_list("pk", flat=True)) | set(Note.objects.values_list("pk", flat=True))


def test_a_file_by_another_way_to_it_is_the_same_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imports(folder)
    monkeypatch.chdir(folder / "deep")
    assert "3 transcripts and notes unchanged" in imports("../2026-03-01 standup.srt", "notes.md", folder)[1]


def test_a_changed_file_replaces_what_changed(folder: Path) -> None:
    imports(folder)
    note_id = Note.objects.get(title="Dates").pk
    (folder / "2026-03-01 standup.srt").write_text(SRT.replace("moves", "stays"))
    (folder / "deep" / "notes.md").write_text("# Dates\nFriday\n\n# Cake\nbring one\n")
    _, out, _ = imports(folder)
    assert "2 segments and 1 notes imported, 1 transcripts and notes unchanged, 1 removed." in out
    assert Transcript.objects.count() == 1
    assert Segment.objects.first().text == "The deadline stays."  # type: ignore[union-attr]
    assert set(Note.objects.values_list("title", flat=True)) == {"Dates", "Cake"}
    assert Note.objects.get(title="Dates").pk == note_id


@pytest.mark.parametrize(("name", "content"), [("a.md", MARKDOWN), ("a.srt", SRT)])
def test_a_touched_file_is_unchanged(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    imports(path)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert "0 segments and 0 notes imported" in imports(path)[1]


@pytest.mark.parametrize(
    ("name", "content", "options", "expected", "message"),
    [
        ("2026-03-01.json", '{"segments": [{"text": "x"}], "created_at": "2025-01-02"}', [], "2025-01-02", "its data"),
        ("2026-03-01.md", "x", ["--date", "2024-05-06"], "2024-05-06", "--date"),
        ("2026-03-01.md", "x", [], "2026-03-01", "its name"),
        ("plain.md", "x", [], "2023-11-14", "its modification time"),
    ],
)
def test_when_it_was_recorded(
    name: str, content: str, options: list[str], expected: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    _, out, _ = imports(path, *options)
    assert f"dated by {message}" in out
    moments = [
        *Transcript.objects.values_list("created_at", flat=True),
        *Note.objects.values_list("created_at", flat=True),
    ]
    assert [moment.date().isoformat() for moment in moments] == [expected]


def test_names_of_speakers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    segments = [{"text": "one", "speaker": "SPEAKER_00"}, {"text": "two", "speaker": "SPEAKER_01"}]
    path.write_text(json.dumps({"segments": segments}))
    names = tmp_path / "names.json"
    names.write_text('{"SPEAKER_01": "John"}')
    imports(path, "--speaker-map", "SPEAKER_00=Sarah", "--speaker-map", names)
    assert list(Segment.objects.values_list("speaker", flat=True)) == ["Sarah", "John"]


def test_whose_they_are(folder: Path) -> None:
    ann = User.objects.create(username="ann")
    imports(folder, "--owner", "ann")
    assert set(Transcript.objects.values_list("owner", flat=True)) == {f"user:{ann.pk}"}
    assert set(Note.objects.values_list("owner", flat=True)) == {f"user:{ann.pk}"}
    assert (
        "2 segments and 2 notes imported, 0 transcripts and notes unchanged, 3 removed."
        in imports(folder, "--shared")[1]
    )
    assert set(Transcript.objects.values_list("owner", flat=True)) == {""}
    assert set(Note.objects.values_list("owner", flat=True)) == {""}


def test_what_cannot_be_taken_in_is_told_and_the_rest_goes_on(folder: Path) -> None:
    (folder / "bad.jsonl").write_text('{"text": "kept"}\n{"title": "no text"}\n{\n')
    (folder / "worse.txt").write_bytes(b"\x80")
    (folder / "empty.vtt").write_text("WEBVTT\n")
    status, out, err = imports(folder)
    assert status == 1
    assert "5 files: 2 segments and 3 notes imported" in out
    assert "4 problems:" in err
    for message in (
        "bad.jsonl: line 2: has no text",
        "bad.jsonl: line 3: is not JSON",
        "worse.txt: is not UTF-8 (byte 0)",
        "empty.vtt: holds nothing to import",
    ):
        assert message in err


def test_of_many_problems_the_first_are_shown(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[]\n" * 30)
    err = imports(tmp_path)[2]
    assert "30 problems:" in err
    assert err.count("is not a JSON object") == 20
    assert "and 10 more" in err
    assert imports(tmp_path, "-v2")[2].count("is not a JSON object") == 30


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["/no/such/file"], "/no/such/file: No such file"),
        (["--date", "soon", "."], "--date 'soon': expected"),
        (["--owner", "nobody", "."], "there is no user 'nobody'"),
        (["--speaker-map", "Sarah", "."], "--speaker-map Sarah: neither FROM=TO nor a file"),
    ],
)
def test_what_is_refused_at_once(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=message):
        imports(*args)


def test_a_long_file_is_one_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer, "GROUP_SEGMENTS", 2)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"segments": [{"text": f"line {n}"} for n in range(6)]}))
    assert "6 segments" in imports(path)[1]
    assert Transcript.objects.count() == 1
    path.write_text(json.dumps({"segments": [{"text": "line 0"}, {"text": "line 1"}]}))
    assert "2 segments and 0 notes imported" in imports(path)[1]
    assert Segment.objects.count() == 2


def test_escape_sequences_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31mred.md").write_text("x")
    assert "\x1b" not in imports(tmp_path)[1]


def test_a_row_with_more_about_it_than_can_be_kept_is_named(tmp_path: Path) -> None:
    deep: dict[str, object] = {}
    for _ in range(500):
        deep = {"a": deep}
    notes = [
        {"title": "deep", "body": "x", "metadata": deep},
        {"title": "huge", "body": "x", "metadata": {"a": "x" * 20_000}},
        {"title": "far", "body": "x", "created_at": "9999-12-31T23:59:59-12:00"},
        {"title": "good", "body": "x", "metadata": {"a": ["b"]}},
    ]
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)))
    status, _, err = imports(tmp_path)
    assert status == 0
    assert 'line 1: "metadata" is nested too deeply; left out' in err
    assert 'line 2: "metadata" has 20,009 characters; at most 20,000 are allowed' in err
    assert 'line 3: "created_at" is not a date or time' in err
    assert [bool(note.metadata.get("a")) for note in Note.objects.order_by("pk")] == [False, False, False, True]


def test_a_time_without_a_zone_is_in_ours(tmp_path: Path, settings: Settings) -> None:
    settings.TIME_ZONE = "America/New_York"
    (tmp_path / "2026-03-01_0900 standup.srt").write_text(SRT)
    assert imports(tmp_path)[0] == 0
    assert Transcript.objects.get().created_at == datetime(2026, 3, 1, 14, tzinfo=UTC)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_unused_fields_may_hold_no_number(tmp_path: Path, constant: str) -> None:
    (tmp_path / "whisper.json").write_text(
        f'{{"text": "hi", "segments": [{{"id": 0, "start": 0.0, "end": 1.5, "text": "hi", "avg_logprob": {constant},'
        f' "words": [{{"word": "hi", "probability": {constant}}}]}}]}}'
    )
    assert imports(tmp_path)[0] == 0
    assert Segment.objects.get().end_secs == 1.5


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "1e999"])
def test_a_used_field_that_is_no_number_is_named(tmp_path: Path, constant: str) -> None:
    (tmp_path / "whisper.json").write_text(f'{{"segments": [{{"start": {constant}, "text": "hi"}}, {{"text": "ho"}}]}}')
    status, _, err = imports(tmp_path)
    assert status == 0
    assert 'segments[0]: "start" must be a number; left out' in err
    assert list(Segment.objects.values_list("text", "start_secs")) == [("hi", None), ("ho", None)]


def ttml(text: str, **attributes: str) -> str:
    facts = "".join(f' ttp:{name}="{value}"' for name, value in attributes.items())
    spoken = '<p begin="00:00:02:05">Spoken</p>'
    return f'<tt xmlns:ttp="http://www.w3.org/ns/ttml#parameter"{facts}><body><div>{spoken}{text}</div></body></tt>'


HUGE = f"1{'0' * 400}"
HOSTILE = {
    "rate of a superscript.ttml": ttml("", frameRate="\u00b2"),
    "rate of 5000 digits.ttml": ttml("", tickRate="9" * 5_000),
    "rate of 400 digits.ttml": ttml("", frameRate="1" * 400),
    "nested captions.ttml": ttml(f"<p>{'<span>' * 3_000}a{'</span>' * 3_000}</p>"),
    "late captions.ttml": ttml('<p begin="999999999:00:00" end="999999999999h">Late</p>'),
    "a list in itself.md": "---\ndate: &a [*a]\n---\nSpoken\n",
    "a title of hexadecimal digits.md": f"---\ntitle: 0x{'f' * 5_000}\n---\nSpoken\n",
    "a title of binary digits.md": f"+++\ntitle = 0b{'1' * 20_000}\n+++\nSpoken\n",
    "tags.md": "---\ndate: !!timestamp x\ntitle: !!bool x\n---\nSpoken\n",
    "an empty number.md": "---\ntitle: !!int ''\n---\nSpoken\n",
    "a long head.md": f"---\ntitle: Long\nx: [{'y, ' * 100_000}]\n---\nSpoken\n",
    "late.whisper.json": f'{{"transcription": [{{"text": "Spoken", "offsets": {{"from": {HUGE}}}}}]}}',
    "ticks.json": f'{{"recognizedPhrases": [{{"nBest": [{{"display": "Spoken"}}], "offsetInTicks": {HUGE}}}]}}',
    "utterances.json": f'{{"text": "Spoken", "utterances": [{{"text": "Spoken", "start": {HUGE}, "end": 1}}]}}',
    "late row.json": '{"text": "Spoken", "start": 1e250, "date": "2024-01-01"}',
    "marks.txt": f"Date: x{'!' * 60_000}x\nAnn: Spoken\nBob: Yes\nAnn: Yes\n",
    "colons.txt": f"Date{':' * 60_000}\nAnn: Spoken\nBob: Yes\nAnn: Yes\n",
    "blanks.txt": f"Ann{' ' * 20_000}x\nAnn: Spoken\nBob{' ' * 20_000}: Yes\nFrom{' ' * 20_000}Ann\nAnn: Yes\n",
    "brackets.lrc": f"[00:01.00]Spoken\n{'[' * 60_000}\n[{'a' * 60_000}\n[00:{'1' * 60_000}]x\n",
    "clocks.vtt": f"WEBVTT\n\n00:01.000 --> 00:02.000\nSpoken\n\n{'1:' * 30_000}00 --> 00:03.000\nx\n",
}


@pytest.mark.usefixtures("words_as_vectors")
def test_no_file_stops_the_import_of_the_others(tmp_path: Path) -> None:
    for name, text in HOSTILE.items():
        (tmp_path / name).write_text(text.replace("Spoken", f"Spoken in {name}"))
    started = time.thread_time()
    _, out, err = imports(tmp_path)
    assert time.thread_time() - started < 20
    assert f"{len(HOSTILE)} files: " in out
    assert "nested captions.ttml: is nested too deeply" in out + err
    texts = [*Segment.objects.values_list("text", flat=True), *Note.objects.values_list("body", flat=True)]
    unread = {name for name in HOSTILE if not any(f"Spoken in {name}" in text for text in texts)}
    assert unread == {"nested captions.ttml"}, (out, err)


@pytest.mark.usefixtures("words_as_vectors")
@pytest.mark.parametrize(
    ("text", "speakers"),
    [
        ("Ann Lee     0:03\nWe start.\n\nBob Ray     0:09\nFine.\n", ["Ann Lee", "Bob Ray"]),
        ("Ann Lee  (0:03)  :  We start.\nBob   (0:09):  Fine.\nAnn Lee (0:12): Good.\n", ["Ann Lee", "Bob", "Ann Lee"]),
        (
            "00:00:03\t From Ann  to  Everyone : We start?!\n00:00:09\t From Bob Ray to Everyone : Up 3.5 percent...\n",
            ["Ann", "Bob Ray"],
        ),
        (f"Ann:{' ' * 20_000}We start.\nBob:\t\tFine.\nAnn: Good.\n", ["Ann", "Bob", "Ann"]),
    ],
)
def test_blanks_around_labels_are_no_part_of_a_name(tmp_path: Path, text: str, speakers: list[str]) -> None:
    (tmp_path / "a.txt").write_text(text)
    status, _, err = imports(tmp_path)
    assert (status, err) == (0, "")
    assert list(Segment.objects.order_by("pk").values_list("speaker", flat=True)) == speakers

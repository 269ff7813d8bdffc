"""Recordings in the JSON of speech services, in the field names of ours.

AssemblyAI, AWS Transcribe, Azure, Deepgram, ElevenLabs, Gladia, Google, Hugging Face, Rev AI, Speechmatics, Vosk and
whisper.cpp. Whisper, WhisperX, faster-whisper and Podcast 2.0 need no translation: see ``json_rows``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chat.rag.ingest.json_rows import MAX_NUMBER

Row = Mapping[str, Any]
MS, TICKS = 1_000.0, 10_000_000.0  # per second
MAX_WORDS = 60  # of a segment that is joined from words
PAUSE_SECS = 1.5
ISO_DURATION = re.compile(r"PT(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6}(?:\.\d{1,9})?)S)?")
SENTENCE_ENDS = (".", "?", "!", "\u3002", "\uff1f", "\uff01", "\u061f", "\u06d4")


@dataclass(frozen=True)
class Dialect:
    """``segments`` returns None for an object of another dialect; ``facts`` describe the recording."""

    name: str
    segments: Callable[[Row], list[Row] | None]
    facts: Callable[[Row], Row] = lambda data: data


def translated(data: Row) -> tuple[Row, list[Row]] | None:
    """Return what describes a recording, and its segments; None for a dialect that is not known."""
    for dialect in DIALECTS:
        try:
            segments = dialect.segments(data)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # a field of an unexpected type
            continue
        if segments is not None:
            return dialect.facts(data), segments
    return None


def _list(data: Row, *path: str) -> list[Row] | None:
    """Return the objects of the list at ``path``, None without one."""
    value: Any = data
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) and value else None


def _segment(text: object, start: object, end: object, speaker: object = None) -> Row:
    return {"text": text, "start": start, "end": end, "speaker": speaker}


def _scaled(value: object, per_second: float) -> object:
    """Return a number in seconds. Any other value, and one beyond all floats, is left to ``json_rows`` to name."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
    return float(value) / per_second if is_number else value  # type: ignore[arg-type]


def hugging_face(data: Row) -> list[Row] | None:
    chunks = _list(data, "chunks")
    return chunks and [
        _segment(row["text"], row["timestamp"][0], row["timestamp"][1], row.get("speaker")) for row in chunks
    ]


def whisper_cpp(data: Row) -> list[Row] | None:
    rows = _list(data, "transcription")
    return rows and [
        _segment(
            row["text"],
            _scaled(row.get("offsets", {}).get("from"), MS),
            _scaled(row.get("offsets", {}).get("to"), MS),
            row.get("speaker"),
        )
        for row in rows
    ]


def utterances(data: Row) -> list[Row] | None:
    """AssemblyAI counts in whole milliseconds, others in seconds."""
    rows = _list(data, "utterances") or (_list(data, "words") if "audio_duration" in data else None)
    if not rows:
        return None
    per_second = MS if all(type(row.get("start")) is int for row in rows) else 1.0
    words = [
        Word(row["text"], _scaled(row["start"], per_second), _scaled(row["end"], per_second), row.get("speaker"))
        for row in rows
    ]
    return [word.segment for word in words] if data.get("utterances") else joined(words)


def deepgram(data: Row) -> list[Row] | None:
    if rows := _list(data, "results", "utterances"):
        return [_segment(row["transcript"], row["start"], row["end"], row.get("speaker")) for row in rows]
    segments: list[Row] = []
    channels = _list(data, "results", "channels") or []
    for number, channel in enumerate(channels):
        best = channel["alternatives"][0]
        # A call has a channel per person; their lines are in the order of time.
        name = f"channel {number}" if len(channels) > 1 else None
        paragraphs = _list(best, "paragraphs", "paragraphs")
        if paragraphs:
            segments += [
                _segment(sentence["text"], sentence["start"], sentence["end"], name or paragraph.get("speaker"))
                for paragraph in paragraphs
                for sentence in paragraph["sentences"]
            ]
        else:
            segments += joined(
                Word(row.get("punctuated_word", row["word"]), row["start"], row["end"], name or row.get("speaker"))
                for row in best.get("words", ())
            )
    return sorted(segments, key=lambda row: float(row["start"])) if len(channels) > 1 else segments or None


def aws(data: Row) -> list[Row] | None:
    if rows := _list(data, "results", "audio_segments"):
        return [
            _segment(row["transcript"], row["start_time"], row["end_time"], row.get("speaker_label")) for row in rows
        ]
    items = _list(data, "results", "items")
    if not items:
        return None
    speakers = {
        item["start_time"]: item.get("speaker_label", turn.get("speaker_label"))
        for turn in _list(data, "results", "speaker_labels", "segments") or ()
        for item in turn.get("items", ())
    }
    return joined(
        Word(
            item["alternatives"][0]["content"],
            item.get("start_time"),
            item.get("end_time"),
            item.get("speaker_label", speakers.get(item.get("start_time"), item.get("channel_label"))),
            is_mark=item.get("type") == "punctuation",
        )
        for item in items
    )


def speechmatics(data: Row) -> list[Row] | None:
    rows = _list(data, "results")
    if not rows or "alternatives" not in rows[0] or "start_time" not in rows[0]:
        return None
    return joined(
        Word(
            best["content"],
            row["start_time"],
            row["end_time"],
            best.get("speaker"),
            is_mark=row.get("type") == "punctuation",
        )
        for row in rows
        for best in row["alternatives"][:1]
    )


def google(data: Row) -> list[Row] | None:
    rows = _list(data, "results")
    if not rows or "alternatives" not in rows[0]:
        return None
    # With speakers, the last result repeats the words of all.
    tagged = [word for word in rows[-1]["alternatives"][0].get("words", ()) if word.get("speakerTag")]
    words = tagged or [word for row in rows for word in row["alternatives"][0].get("words", ())]
    if words:
        return joined(
            Word(
                word["word"],
                word.get("startTime", word.get("startOffset", 0)),
                word.get("endTime", word.get("endOffset")),
                word.get("speakerTag", word.get("speakerLabel")),
            )
            for word in words
        )
    return [_segment(row["alternatives"][0]["transcript"], None, row.get("resultEndTime")) for row in rows]


def rev_ai(data: Row) -> list[Row] | None:
    turns = _list(data, "monologues")
    if not turns:
        return None
    segments: list[Row] = []
    for turn in turns:
        parts = turn["elements"]
        starts = [part["ts"] for part in parts if part.get("ts") is not None]
        ends = [part["end_ts"] for part in parts if part.get("end_ts") is not None]
        text = "".join(part["value"] for part in parts)
        segments.append(_segment(text, min(starts, default=None), max(ends, default=None), turn.get("speaker")))
    return segments


def azure(data: Row) -> list[Row] | None:
    rows = _list(data, "recognizedPhrases") or _list(data, "phrases")
    if not rows:
        return None
    has_channels = len({row.get("channel") for row in rows}) > 1
    segments = []
    for row in rows:
        start, length = (_azure_secs(row, name) for name in ("offset", "duration"))
        speaker = row.get("speaker", f"channel {row.get('channel')}" if has_channels else None)
        text = row["text"] if "text" in row else row["nBest"][0]["display"]
        end = start + length if start is not None and length is not None else None
        segments.append(_segment(text, start, end, speaker))
    if has_channels:
        segments.sort(key=lambda row: row["start"])
    return segments


def _azure_secs(row: Row, name: str) -> float | None:
    """Return a time in seconds, which Azure's interfaces write in ticks, in milliseconds or in words."""
    for unit, per_second in (("InTicks", TICKS), ("Milliseconds", MS)):
        value = row.get(name + unit)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER:
            return float(value) / per_second
    match = ISO_DURATION.fullmatch(str(row.get(name)))
    return sum(float(n or 0) * secs for n, secs in zip(match.groups(), (3600, 60, 1), strict=True)) if match else None


def gladia(data: Row) -> list[Row] | None:
    return _list(data, "result", "transcription", "utterances") or _list(data, "transcription", "utterances")


def eleven_labs(data: Row) -> list[Row] | None:
    rows = _list(data, "words")
    if not rows or ("speaker_id" not in rows[0] and "type" not in rows[0]):
        return None
    words = (row for row in rows if row.get("type") != "spacing")
    return joined(Word(row["text"], row["start"], row["end"], row.get("speaker_id")) for row in words)


def vosk(data: Row) -> list[Row] | None:
    rows = _list(data, "result")
    return rows and joined(Word(row["word"], row["start"], row["end"], row.get("speaker")) for row in rows)


def sentences(data: Row) -> list[Row] | None:
    return _list(data, "sentences")


@dataclass(frozen=True)
class Word:
    """A word; a punctuation mark has no time and follows the word before it without a space."""

    text: str
    start: object
    end: object
    speaker: object = None
    is_mark: bool = False

    @property
    def segment(self) -> Row:
        return _segment(self.text, self.start, self.end, self.speaker)


def joined(words: Iterable[Word]) -> list[Row]:
    """Join words into segments, which end with a sentence, a pause or the speaker."""
    return [
        {
            "text": "".join(word.text if word.is_mark else f" {word.text}" for word in group).strip(),
            "start": group[0].start,
            "end": next((word.end for word in reversed(group) if word.end is not None), None),
            "speaker": group[0].speaker,
        }
        for group in _groups(words)
    ]


def _groups(words: Iterable[Word]) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in words:
        if group and not word.is_mark and _is_over(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _is_over(group: list[Word], word: Word) -> bool:
    last = group[-1]
    if word.speaker != group[0].speaker or len(group) >= MAX_WORDS or last.text.endswith(SENTENCE_ENDS):
        return True
    try:
        return float(str(word.start).rstrip("s")) - float(str(last.end).rstrip("s")) > PAUSE_SECS
    except ValueError:  # a word without a time
        return False


def _metadata(data: Row) -> Row:
    nested = data.get("metadata")
    return {"date": nested.get("created"), "duration": nested.get("duration")} if isinstance(nested, Mapping) else {}


# The first that fits counts; the forms of AWS, Speechmatics and Google differ inside "results".
DIALECTS = (
    Dialect("Hugging Face", hugging_face),
    Dialect("whisper.cpp", whisper_cpp, lambda data: {}),
    Dialect("Deepgram", deepgram, _metadata),
    Dialect("AWS Transcribe", aws, lambda data: {"title": data.get("jobName")}),
    Dialect("Speechmatics", speechmatics, lambda data: {}),
    Dialect("Google", google, lambda data: {}),
    Dialect("Rev AI", rev_ai, lambda data: {}),
    Dialect("Azure", azure, lambda data: {"date": data.get("timestamp")}),
    Dialect("Gladia", gladia, lambda data: {}),
    Dialect("ElevenLabs", eleven_labs),
    Dialect("AssemblyAI", utterances),
    Dialect("Vosk", vosk),
    Dialect("Fireflies", sentences),
)

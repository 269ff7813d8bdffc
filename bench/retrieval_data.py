"""Conversations with questions and the lines that answer them: QMSum's meetings, and the project's own.

QMSum (https://github.com/Yale-LILY/QMSum, MIT) is a JSONL file with a meeting a line. The project's own conversations
are in ``conversations``: ``== date title`` begins a recording, ``Speaker [emotion]: text  #label`` is a line,
``? question = labels`` a question, ``! text`` one about something else. Those in ``held_back`` were written before any
search ran over them, and nothing is tuned on them.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chat.rag.records import SegmentIn, TranscriptIn

FOLDER = Path(__file__).parent / "conversations"
HELD_BACK = FOLDER / "held_back"
BEGIN = datetime(2026, 1, 5, 10, tzinfo=UTC)
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
LINE_SECS = 10.0
# What QMSum's transcribers noted, and the spaces that its tokenizer left.
NOTED, BEFORE_MARK, BEFORE_ENDING = re.compile(r"\{[^}]*\}"), re.compile(r"\s+([.,?!;:])"), re.compile(r" '(?=\w)")
LABEL = re.compile(r"\s*#(\w+)$")
LINE = re.compile(r"(?P<speaker>[^:\[]+?)\s*(?:\[(?P<emotion>\w+)\])?:\s*(?P<text>.+)")


@dataclass
class Question:
    text: str
    answers: list[int]  # numbers of the lines, from 0 on through all recordings


@dataclass
class Conversation:
    """``name`` is that of a meeting, or the language of the project's own."""

    name: str
    recordings: list[TranscriptIn] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    off_topic: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[SegmentIn]:
        return [line for recording in self.recordings for line in recording.segments]


def meetings(path: Path) -> list[Conversation]:
    """Read QMSum's meetings with their specific questions."""
    with path.open(encoding="utf-8") as rows:
        return [_meeting(f"meeting {number}", json.loads(row)) for number, row in enumerate(rows, start=1)]


def own(folder: Path) -> list[Conversation]:
    """Read the project's conversations of ``folder``, one per language."""
    return [_own(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.txt"))]


def _meeting(name: str, row: dict[str, Any]) -> Conversation:
    numbers: dict[int, int] = {}
    lines: list[SegmentIn] = []
    for position, turn in enumerate(row["meeting_transcripts"]):
        text = _cleaned(turn["content"])
        if re.search(r"\w", text):
            numbers[position] = len(lines)
            lines.append(SegmentIn(text=text, speaker=turn["speaker"], start_secs=LINE_SECS * len(lines)))
    conversation = Conversation(name, [TranscriptIn(job_id=name, segments=tuple(lines), recorded_at=BEGIN)])
    for question in row["specific_query_list"]:
        spans = [range(int(first), int(last) + 1) for first, last in question["relevant_text_span"]]
        answers = [numbers[position] for span in spans for position in span if position in numbers]
        if answers:
            conversation.questions.append(Question(question["query"], answers))
    return conversation


def _cleaned(text: str) -> str:
    text = BEFORE_MARK.sub(r"\1", NOTED.sub("", text))
    return " ".join(BEFORE_ENDING.sub("'", text).split())


def _own(name: str, text: str) -> Conversation:
    conversation, labels = Conversation(name), dict[str, int]()
    n_lines = 0
    for head, lines in _recordings(text):
        day, _, title = head.partition(" ")
        segments: list[SegmentIn] = []
        for content in lines:
            if label := LABEL.search(content):
                labels[label[1]] = n_lines
            line = LINE.fullmatch(LABEL.sub("", content))
            if line is None:
                raise ValueError(f"{name}: neither a line nor a question: {content}")
            segments.append(
                SegmentIn(
                    text=line["text"],
                    speaker=line["speaker"],
                    emotion=line["emotion"] or "",
                    start_secs=LINE_SECS * len(segments),
                )
            )
            n_lines += 1
        moment = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(hours=10)
        recording = TranscriptIn(job_id=f"{name} {day}", title=title, segments=tuple(segments), recorded_at=moment)
        conversation.recordings.append(recording)
    for content in text.splitlines():
        if content.startswith("? "):
            question, _, answers = content[2:].rpartition(" = ")
            conversation.questions.append(Question(question, [labels[label] for label in answers.split()]))
        elif content.startswith("! "):
            conversation.off_topic.append(content[2:])
    return conversation


def _recordings(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        head, *lines = part.splitlines()
        yield head, [content for content in lines if content.strip() and content[0] not in "?!"]

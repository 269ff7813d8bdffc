"""Chunking of segments and notes into passages that fit the embedding model's input."""

from collections.abc import Iterator, Sequence

from chat.rag import passage_context
from chat.rag.models import Kind, Note, Passage, Segment

# The model reads 256 tokens, about this many characters of English text.
MAX_CHARS = 1_000
SENTENCE_ENDS = (". ", "? ", "! ", "\n")


def split(text: str) -> Iterator[str]:
    """Yield pieces of at most MAX_CHARS, split after a sentence where possible, else between words."""
    start = 0
    while len(text) - start > MAX_CHARS:
        window = text[start : start + MAX_CHARS]
        half = MAX_CHARS // 2
        end = max(window.rfind(mark, half) + len(mark) for mark in SENTENCE_ENDS)
        if end <= half:
            end = window.rfind(" ", half) + 1 or MAX_CHARS
        yield window[:end].strip()
        start += end
    yield text[start:].strip()


def recording_passages(segments: Sequence[Segment], *, owner: str) -> Iterator[Passage]:
    """Yield the passages of all lines of a recording, in order."""
    before = ""
    for segment in segments:
        for text in filter(None, split(segment.text)):
            context = passage_context.in_recording(speaker=segment.speaker, before=before)
            yield Passage(
                owner=owner,
                kind=Kind.SEGMENT,
                text=text,
                context=context.before,
                context_terms=context.terms,
                speaker=segment.speaker.casefold()[:200],
                emotion=segment.emotion.lower()[:100],
                said_at=segment.said_at,
                transcript=segment.transcript,
                segment=segment,
            )
            before = passage_context.spoken(segment.speaker, text)


def note_passages(note: Note) -> Iterator[Passage]:
    """Yield the passages of a note; each begins with the title, so that its embedding carries the subject."""
    context = passage_context.in_note(title=note.title, file_name=str(note.metadata.get("file", "")))
    for text in filter(None, split(note.body)):
        yield Passage(
            owner=note.owner,
            kind=Kind.MEMORY,
            text=f"{note.title}\n{text}" if note.title else text,
            context=context.before,
            context_terms=context.terms,
            said_at=note.created_at,
            note=note,
        )

"""Cuts what is remembered into passages: pieces short enough that the embedding model reads all of each."""

from collections.abc import Iterator

from chat.rag.models import Kind, Note, Passage, Segment

# The model reads 256 tokens, of English text about this many characters.
MAX_CHARS = 1_000
SENTENCE_ENDS = (". ", "? ", "! ", "\n")


def cut(text: str) -> Iterator[str]:
    """Pieces of at most MAX_CHARS, cut after a sentence where one ends in the second half, else between words."""
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


def of_segment(segment: Segment, *, owner: str) -> Iterator[Passage]:
    for text in filter(None, cut(segment.text)):
        yield Passage(
            owner=owner,
            kind=Kind.SEGMENT,
            text=text,
            speaker=segment.speaker.casefold()[:200],
            emotion=segment.emotion.lower()[:100],
            said_at=segment.said_at,
            transcript=segment.transcript,
            segment=segment,
        )


def of_note(note: Note) -> Iterator[Passage]:
    """Each piece of a long note begins with the title, which says what the piece is about."""
    for text in filter(None, cut(note.body)):
        titled = f"{note.title}\n{text}" if note.title else text
        yield Passage(owner=note.owner, kind=Kind.MEMORY, text=titled, said_at=note.created_at, note=note)

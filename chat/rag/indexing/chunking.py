"""Chunking of segments and notes into passages that fit the embedding model's input."""

from collections.abc import Iterator, Sequence

from chat.rag import passage_context
from chat.rag.models import Kind, Note, Passage, Segment
from chat.rag.words import IS_UNSPACED

# The smallest encoder reads 256 tokens, about this many characters of English text.
MAX_CHARS = 1_000
# A character of a script without spaces is about a token, one of another alphabet up to half of one.
UNSPACED_COST, FOREIGN_COST = 4, 2
SENTENCE_ENDS = (". ", "? ", "! ", "\n", "\u3002", "\uff1f", "\uff01", "\u061f ", "\u06d4 ")


def split(text: str) -> Iterator[str]:
    """Yield pieces that an encoder reads whole, split after a sentence where possible, else between words."""
    start = 0
    while (n_fitting := _n_fitting(text[start : start + MAX_CHARS])) < len(text) - start:
        window = text[start : start + n_fitting]
        half = n_fitting // 2
        end = max((at + len(mark) for mark in SENTENCE_ENDS if (at := window.rfind(mark, half)) >= 0), default=0)
        if end <= half:
            end = window.rfind(" ", half) + 1 or n_fitting
        yield window[:end].strip()
        start += end
    yield text[start:].strip()


def _n_fitting(window: str) -> int:
    """Return how many characters at the beginning of ``window`` have as many tokens as MAX_CHARS English ones."""
    if window.isascii():
        return len(window)
    cost = 0
    for number, character in enumerate(window):
        if not character.isascii():
            cost += UNSPACED_COST if IS_UNSPACED.match(character) else FOREIGN_COST
        else:
            cost += 1
        if cost > MAX_CHARS:
            return number
    return len(window)


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

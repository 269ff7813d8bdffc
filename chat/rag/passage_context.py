"""Find a passage by more than its own text: by what precedes it, and by where it comes from."""

from dataclasses import dataclass

from chat.rag.words import index_form

MAX_CONTEXT_CHARS = 320  # about as much as the embedding model needs to know what "Yes, by Friday" answers


@dataclass(frozen=True)
class PassageContext:
    """``before``: what precedes the text, for its vector. ``terms``: words that count less than those of the text."""

    before: str = ""
    terms: str = ""


def in_recording(*, speaker: str, before: str) -> PassageContext:
    """Return the context of a piece of a line, of which ``before`` is the previous line or the piece before it."""
    before = " ".join(before.split())[-MAX_CONTEXT_CHARS:]
    return PassageContext(before, index_form(f"{speaker}\n{before}"))


def in_note(*, title: str, file_name: str) -> PassageContext:
    """Return the context of a part of a note: the name of its file, unless the title has it."""
    stem = file_stem(file_name)
    return PassageContext("" if stem.casefold() in title.casefold() else stem[:MAX_CONTEXT_CHARS])


def file_stem(file_name: str) -> str:
    return file_name.rpartition(".")[0] or file_name


def spoken(speaker: str, text: str) -> str:
    """Return a line with its speaker, as vectors and contexts have it."""
    return f"{speaker}: {text}" if speaker else text

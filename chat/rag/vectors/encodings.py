"""The encoding of the stored vectors, and the change to another one while the old vectors are searched.

The vectors to come are collected in ``Passage.successor``. When no passage lacks one, all take the place of the old
vectors in one transaction.
"""

from collections.abc import Iterable

from django.db.models import F

from chat.rag.models import Passage, VectorEncoding
from chat.rag.passage_context import spoken
from chat.rag.vectors import embedding
from chat.rag.vectors.embedding import EncoderInput
from chat.rag.vectors.ordering import serialised_insert


def active_encoding() -> str:
    """Return the encoding of the stored vectors; for an empty store that of the settings."""
    row, _ = VectorEncoding.objects.get_or_create(
        pk=VectorEncoding.ONLY, defaults={"encoding": embedding.target_encoding()}
    )
    return row.encoding


def encoder_input(passage: Passage, encoding: str) -> EncoderInput:
    """Return what the encoder reads of a passage."""
    if not embedding.has_context(encoding):
        return EncoderInput(passage.text)
    speaker = passage.segment.speaker if passage.segment else ""
    return EncoderInput(spoken(speaker, passage.text), passage.context)


def discard_outdated(passages: Iterable[Passage], encoding: str) -> None:
    """Remove vectors that were computed for another encoding than the present one, inside the inserting transaction.

    The encoding may have changed between the computation and the insertion; the backfill computes them anew.
    """
    if active_encoding() != encoding:
        for passage in passages:
            passage.embedding = None


def is_outdated() -> bool:
    """Tell whether the stored vectors are not those that the settings ask for."""
    return Passage.objects.exists() and active_encoding() != embedding.target_encoding()


def prepare(encoding: str) -> None:
    """Begin, or continue, the change to ``encoding``; vectors of an abandoned change are dropped."""
    state = VectorEncoding.objects.filter(pk=VectorEncoding.ONLY)
    # Committed before the vectors are dropped: from here on no process adds to those of the abandoned change.
    state.exclude(coming=encoding).update(coming="")
    with serialised_insert():
        if state.filter(coming="").exists():
            Passage.objects.exclude(successor=None).update(successor=None)
            state.update(coming=encoding)


def is_current(column: str, encoding: str) -> bool:
    """Tell whether ``column`` of the passages holds vectors of ``encoding``, which stays so during the transaction."""
    state = VectorEncoding.objects.select_for_update().get(pk=VectorEncoding.ONLY)
    return encoding == (state.coming if column == "successor" else state.encoding)


def take_over(encoding: str) -> bool:
    """Replace all vectors by their successors; return False when a passage still lacks one."""
    with serialised_insert():
        is_under_way = VectorEncoding.objects.filter(pk=VectorEncoding.ONLY, coming=encoding).exists()
        if not is_under_way or Passage.objects.filter(successor=None).exists():
            return False
        Passage.objects.update(embedding=F("successor"), successor=None)
        VectorEncoding.objects.filter(pk=VectorEncoding.ONLY).update(encoding=encoding, coming="")
    return True


def progress() -> tuple[int, int] | None:
    """Return how many passages have their vector to come, and how many there are; None when no change is under way."""
    if not VectorEncoding.objects.exclude(coming="").exists():
        return None
    return Passage.objects.exclude(successor=None).count(), Passage.objects.count()

"""Changes stored memories in place: a row keeps its id, and is found by its new text from the same transaction on.

Passages that read as before keep their vectors, the backfill computes the others. What prompts hold of the earlier
text is purged as after a deletion.
"""

from collections import defaultdict
from collections.abc import Callable
from copy import copy
from datetime import datetime

from django.db.models import F

from chat.errors import Conflict, InvalidRequest, NotFound
from chat.rag.indexing import chunking
from chat.rag.indexing.indexer import ROWS_PER_INSERT
from chat.rag.indexing.purging import purge_lines, purge_note, purge_transcript
from chat.rag.limits import MAX_TITLE_CHARS
from chat.rag.models import Note, Passage, Segment, Transcript
from chat.rag.records import plain, short
from chat.rag.vectors.encodings import active_encoding, discard_outdated, encoder_input
from chat.rag.vectors.index import prune_changes
from chat.rag.vectors.ordering import serialised_insert
from chat.transactions import one_transaction
from inference.text_forms import composed

Content = tuple[object, ...]
ByLine = defaultdict[int | None, list[Passage]]
CHANGED_MEANWHILE = "the memory was changed or deleted meanwhile; look at it again"


class PassageDiff:
    """Passages to remove and to add, so that a memory has ``after`` instead of the stored ``before``."""

    def __init__(self, before: list[Passage], after: list[Passage]) -> None:
        self.ids = {passage.pk for passage in before}
        self.removed: list[Passage] = []
        self.added: list[Passage] = []
        old, new = _by_line(before), _by_line(after)
        for line in old | new:
            if list(map(_content, old[line])) != list(map(_content, new[line])):
                self.removed += old[line]
                self.added += new[line]
        self.encoding = active_encoding()
        # Only vectors of the present encoding: one that is to come may be given up meanwhile.
        vectors = {encoder_input(passage, self.encoding): passage.embedding for passage in self.removed}
        for passage in self.added:
            passage.embedding = vectors.get(encoder_input(passage, self.encoding))

    def store(self, memory: Note | Transcript) -> None:
        """Replace the passages, inside the transaction that saves ``memory``. Raises Conflict."""
        prune_changes()
        # Every change of a memory and every import replaces passages, so that their ids are its version.
        if set(memory.passages.values_list("pk", flat=True)) != self.ids:
            raise Conflict(CHANGED_MEANWHILE)
        discard_outdated(self.added, self.encoding)
        for passage in self.added:
            passage.pk = None  # of a first attempt that was rolled back
        Passage.objects.filter(pk__in=[passage.pk for passage in self.removed]).delete()
        Passage.objects.bulk_create(self.added, batch_size=ROWS_PER_INSERT)


def edit_note(
    *, note_id: int, title: str | None = None, body: str | None = None, created_at: datetime | None = None
) -> None:
    """Change what is not None. Raises NotFound, Conflict."""
    before = Note.objects.filter(pk=note_id).first()
    if before is None:
        raise NotFound("there is no such note")
    after = copy(before)
    after.title = before.title if title is None else short(title, MAX_TITLE_CHARS)
    after.body = before.body if body is None else plain(body).strip()
    after.created_at = created_at or before.created_at
    diff = PassageDiff(list(before.passages.all()), list(chunking.note_passages(after)))
    _save(after, diff, lambda: purge_note(after.pk))


def edit_transcript(*, transcript_id: int, title: str | None = None, created_at: datetime | None = None) -> None:
    """Change what is not None; the times of the lines move with that of the recording.

    Raises NotFound, Conflict, and InvalidRequest where a line would leave the calendar.
    """
    before = Transcript.objects.filter(pk=transcript_id).first()
    if before is None:
        raise NotFound("there is no such transcript")
    after = copy(before)
    after.title = before.title if title is None else short(title, MAX_TITLE_CHARS)
    after.created_at = created_at or before.created_at
    moved_by = after.created_at - before.created_at
    lines = _lines_of(after)
    try:
        for line in lines:
            line.said_at += moved_by
    except OverflowError as error:
        raise InvalidRequest("a line of the recording would leave the calendar", field="created_at") from error
    diff = _diff(before, lines)

    def move_lines() -> None:
        after.segments.update(said_at=F("said_at") + moved_by)
        purge_transcript(after.pk, [line.pk for line in lines])

    _save(after, diff, move_lines)


def edit_line(
    *, segment_id: int, text: str | None = None, speaker: str | None = None, said_at: datetime | None = None
) -> None:
    """Change what is not None of a line of a transcript; the line after it has it as context.

    Raises NotFound, Conflict.
    """
    segment = Segment.objects.select_related("transcript").filter(pk=segment_id).first()
    if segment is None:
        raise NotFound("there is no such line")
    before = segment.transcript
    after = copy(before)
    lines = _lines_of(after)
    line = next((line for line in lines if line.pk == segment_id), None)
    if line is None:
        raise Conflict(CHANGED_MEANWHILE)
    line.text = line.text if text is None else plain(text).strip()
    line.speaker = line.speaker if speaker is None else short(composed(speaker))
    line.said_at = said_at or line.said_at
    after.full_text = _with_line(before.full_text, segment.text, line.text, lines)
    diff = _diff(before, lines)

    def change_line() -> None:
        line.save(force_update=True)
        # A source has the lines around its best one, too.
        purge_lines([line.pk for line in lines])

    _save(after, diff, change_line)


def _save(memory: Note | Transcript, diff: PassageDiff, change_rest: Callable[[], None]) -> None:
    """Save all of a change in one transaction, or nothing. Raises Conflict."""

    @one_transaction
    def store() -> None:
        with serialised_insert():
            diff.store(memory)
            memory.save(force_update=True)
            change_rest()

    store()


def _lines_of(transcript: Transcript) -> list[Segment]:
    return list(transcript.segments.order_by("position"))


def _diff(before: Transcript, lines: list[Segment]) -> PassageDiff:
    after = list(chunking.recording_passages(lines, owner=before.owner))
    return PassageDiff(list(before.passages.select_related("segment")), after)


def _by_line(passages: list[Passage]) -> ByLine:
    """Group by line, that of a note being None. A line's passages are replaced together, so that their ids ascend."""
    by_line: ByLine = defaultdict(list)
    for passage in passages:
        by_line[passage.segment_id].append(passage)
    return by_line


def _content(passage: Passage) -> Content:
    """Return all that the indexes have of a passage, but its vector."""
    return (
        passage.segment_id,
        passage.searched_text,
        passage.context,
        passage.context_terms,
        passage.segment.speaker if passage.segment else "",
        passage.emotion,
        passage.said_at,
    )


def _with_line(full_text: str, old: str, new: str, lines: list[Segment]) -> str:
    """Return the text of a whole recording after a line of it was changed; an empty one stays empty."""
    if not full_text or old == new:
        return full_text
    if full_text.count(old) == 1:
        return full_text.replace(old, new)
    return "\n".join(line.text for line in lines)

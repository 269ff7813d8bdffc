"""Transcripts with their segments, notes, and the passages into which both are cut for search.

Database triggers keep the full-text index and the change list in step with the passages (migration 0002).
"""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from chat.rag.passage_context import file_stem
from chat.rag.sources import MEMORY, SEGMENT
from chat.rag.words import index_form
from inference.models.derived import DerivedField, FoldedField

SHARED = ""  # owner of rows that every caller may read; services index under it


class IndexFormField(DerivedField, models.TextField):  # type: ignore[type-arg]
    """The words of another column as the text index has them."""

    def derive(self, text: str) -> str:
        return index_form(text)


class Kind(models.TextChoices):
    """Origin of a passage; the values are those of the RAG protocol."""

    SEGMENT = SEGMENT
    MEMORY = MEMORY


class ImportedFile(models.Model):
    """A file whose memories are stored, for the import of its next version, under the same name or another one.

    ``key`` is a hash of ``path``, the prefix of the ids of its memories; ``digest`` is a hash of the content.
    """

    path = models.TextField()
    key = models.CharField(max_length=40, unique=True)
    digest = models.CharField(max_length=64, db_index=True)
    owner = models.CharField(max_length=64, blank=True, default=SHARED)
    imported_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.path


class Transcript(models.Model):
    """A recording, made at ``created_at``; ``digest`` covers all fields, to recognise an identical import."""

    owner = models.CharField(max_length=64, blank=True, default=SHARED)
    job_id = models.CharField(max_length=200)  # chosen by its sender; the same one replaces
    session_id = models.CharField(max_length=200, blank=True, default="")
    title = models.CharField(max_length=300, blank=True, default="")
    title_folded = FoldedField(source="title")
    full_text = models.TextField(blank=True, default="")
    duration_secs = models.FloatField(null=True, blank=True)
    digest = models.CharField(max_length=64, blank=True, default="", editable=False)
    file = models.ForeignKey(ImportedFile, on_delete=models.SET_NULL, null=True, blank=True, related_name="transcripts")
    created_at = models.DateTimeField(default=timezone.now)
    indexed_at = models.DateTimeField(auto_now=True)  # an import again changes it, but not created_at

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["owner", "job_id"], name="transcript_owner_job")]
        indexes: ClassVar = [models.Index(fields=["owner", "-created_at"], name="transcript_owner_created")]

    def __str__(self) -> str:
        return self.title or self.job_id


class Segment(models.Model):
    """An utterance; ``start_secs`` and ``end_secs`` are offsets in the recording, ``said_at`` is wall-clock time."""

    transcript = models.ForeignKey(Transcript, on_delete=models.CASCADE, related_name="segments")
    position = models.PositiveIntegerField()
    text = models.TextField()
    text_folded = FoldedField(source="text")
    speaker = models.CharField(max_length=200, blank=True, default="")
    speaker_folded = FoldedField(source="speaker")
    start_secs = models.FloatField(null=True, blank=True)
    end_secs = models.FloatField(null=True, blank=True)
    emotion = models.CharField(max_length=100, blank=True, default="")
    emotion_confidence = models.FloatField(null=True, blank=True)
    emotion_scores = models.JSONField(default=dict, blank=True)
    audio_metrics = models.JSONField(default=dict, blank=True)
    said_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["transcript", "position"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["transcript", "position"], name="segment_position")]

    def __str__(self) -> str:
        return f"{self.speaker}: {self.text[:60]}" if self.speaker else self.text[:60]


class Note(models.Model):
    """A written text: the RAG protocol's "memory". ``key`` identifies it at its origin, or is empty."""

    owner = models.CharField(max_length=64, blank=True, default=SHARED)
    key = models.CharField(
        max_length=200, blank=True, default=""
    )  # of imported notes: a second import finds them by it
    title = models.CharField(max_length=300, blank=True, default="")
    title_folded = FoldedField(source="title")
    body = models.TextField()
    body_folded = FoldedField(source="body")
    metadata = models.JSONField(default=dict, blank=True)
    file = models.ForeignKey(ImportedFile, on_delete=models.SET_NULL, null=True, blank=True, related_name="notes")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["owner", "key"], condition=~Q(key=""), name="note_owner_key")
        ]
        indexes: ClassVar = [models.Index(fields=["owner", "-created_at"], name="note_owner_created")]

    def __str__(self) -> str:
        return self.title or self.body[:60]


class Passage(models.Model):
    """A searchable piece of a segment or note, with the columns that filters and ranking need.

    ``speaker`` is case-folded, ``emotion`` in lower case. ``context`` is what precedes the text, ``context_terms`` are
    the words of the surroundings. ``embedding`` is a unit vector of 384 float16 numbers in the encoding of
    VectorEncoding, or None until the backfill has computed it; ``successor`` one in the encoding that is to come.
    """

    owner = models.CharField(max_length=64, blank=True, default=SHARED)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    text = models.TextField()
    terms = IndexFormField(source="searched_text")
    context = models.TextField(blank=True, default="")
    context_terms = models.TextField(blank=True, default="")
    speaker = models.CharField(max_length=200, blank=True, default="")
    emotion = models.CharField(max_length=100, blank=True, default="")
    said_at = models.DateTimeField()
    transcript = models.ForeignKey(Transcript, on_delete=models.CASCADE, null=True, related_name="passages")
    segment = models.ForeignKey(Segment, on_delete=models.CASCADE, null=True, related_name="passages")
    note = models.ForeignKey(Note, on_delete=models.CASCADE, null=True, related_name="passages")
    embedding = models.BinaryField(null=True)
    successor = models.BinaryField(null=True)

    class Meta:
        ordering: ClassVar = ["id"]
        indexes: ClassVar = [models.Index(fields=["id"], condition=Q(embedding=None), name="passage_without_vector")]

    def __str__(self) -> str:
        return self.text[:60]

    @property
    def searched_text(self) -> str:
        """The text, after the title of the recording or the name of the note's file: they are words of each part."""
        if self.transcript:
            return f"{self.transcript.title}\n{self.text}"
        return f"{file_stem(str(self.note.metadata.get('file', '')))}\n{self.text}" if self.note else self.text


class VectorEncoding(models.Model):
    """The encoding of all embeddings, and that of the successors: one row, made with the first passage."""

    ONLY = 1

    encoding = models.CharField(max_length=100)
    coming = models.CharField(max_length=100, blank=True, default="")

    def __str__(self) -> str:
        return self.encoding

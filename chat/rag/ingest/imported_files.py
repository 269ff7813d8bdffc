"""Memories by the files that brought them: which there are, and their removal."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.db.models import Q, QuerySet

from chat.rag.indexing import indexer
from chat.rag.models import ImportedFile, Note, Transcript

HASH_CHARS = 24


@dataclass(frozen=True)
class Brought:
    """Memories of one or several files: (owner, job id) of transcripts, (owner, key, id) of notes."""

    transcripts: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str, int], ...] = ()

    @classmethod
    def by_path(cls, path: Path) -> "Brought":
        """Return what the file at ``path`` brought for any owner."""
        key = key_of(path)
        file = ImportedFile.objects.filter(key=key).first()
        recorded = cls.by_file(file) if file else cls()
        # Of an import that was interrupted, or that was made before files were recorded.
        transcripts = Transcript.objects.filter(Q(job_id=key) | Q(job_id__startswith=f"{key}/"), file=None)
        unlinked = cls._of(transcripts, Note.objects.filter(key__startswith=f"{key}/", file=None))
        return cls(recorded.transcripts + unlinked.transcripts, recorded.notes + unlinked.notes)

    @classmethod
    def by_file(cls, file: ImportedFile) -> "Brought":
        return cls._of(file.transcripts.all(), file.notes.all())

    @classmethod
    def of_owner(cls, owner: str, *, job_id: str | None = None) -> "Brought":
        """Return all memories of ``owner``, or the one with ``job_id``, however they came."""
        transcripts = Transcript.objects.filter(owner=owner)
        if job_id is not None:
            return cls._of(transcripts.filter(job_id=job_id), Note.objects.none())
        return cls._of(transcripts, Note.objects.filter(owner=owner))

    @classmethod
    def _of(cls, transcripts: QuerySet[Transcript], notes: QuerySet[Note]) -> "Brought":
        return cls(tuple(transcripts.values_list("owner", "job_id")), tuple(notes.values_list("owner", "key", "pk")))

    def __len__(self) -> int:
        return len(self.transcripts) + len(self.notes)

    def owners(self) -> set[str]:
        return {owner for owner, *_ in self.transcripts} | {owner for owner, *_ in self.notes}

    def except_for(self, *, owner: str, job_ids: Collection[str], keys: Collection[str]) -> "Brought":
        """Return the memories of other owners, and those of ``owner`` with other ids."""
        return Brought(
            tuple(row for row in self.transcripts if row[0] != owner or row[1] not in job_ids),
            tuple(row for row in self.notes if row[0] != owner or row[1] not in keys),
        )

    def among(self, *, job_ids: Collection[str], keys: Collection[str]) -> "Brought":
        """Return the memories with one of these ids."""
        return Brought(
            tuple(row for row in self.transcripts if row[1] in job_ids),
            tuple(row for row in self.notes if row[1] in keys),
        )


def key_of(path: Path) -> str:
    """Return the prefix of the ids of all memories of the file at ``path``, which need not exist."""
    resolved = str(path.resolve()).encode("utf-8", "surrogateescape")
    return f"file/{hashlib.sha256(resolved).hexdigest()[:HASH_CHARS]}"


def forget(brought: Brought) -> int:
    """Delete the memories, and return how many there were."""
    n_transcripts = sum(indexer.delete_transcript(owner=owner, job_id=job_id) for owner, job_id in brought.transcripts)
    return n_transcripts + sum(indexer.delete_note(owner=owner, note_id=pk) for owner, _, pk in brought.notes)


def renamed_from(digest: str, *, owner: str, path: Path) -> Iterator[ImportedFile]:
    """Yield the files of the same content that were imported under a name which is gone."""
    for file in ImportedFile.objects.filter(digest=digest, owner=owner).exclude(key=key_of(path)):
        if not Path(file.path).exists():
            yield file


def imported_below(paths: Iterable[Path]) -> list[ImportedFile]:
    """Return the imported files at or below ``paths``, which need not exist."""
    places = [str(path.resolve()) for path in paths]
    condition = Q(pk__in=())
    for place in places:
        condition |= Q(path=place) | Q(path__startswith=place.rstrip("/") + "/")
    files = ImportedFile.objects.filter(condition).order_by("path")
    # SQLite ignores the case of ASCII letters when it compares beginnings.
    return [file for file in files if any(file.path == place or file.path.startswith(f"{place}/") for place in places)]

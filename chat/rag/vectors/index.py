"""In-process vector index over the passages, synchronised with the database before each search.

Writes of other processes are detected by the highest ids of passages and of changes (migration 0002).
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from django.db import connection

from chat.rag.vectors.embedding import DIMENSIONS, Vectors
from chat.rag.vectors.snapshot import Columns, VectorSnapshot, columns

Row = tuple[Any, ...]
VECTOR_BYTES = 2 * DIMENSIONS
ROWS_PER_FETCH = 5_000
# Deleted rows are only marked; the index is reloaded at this interval,
RELOAD_SECS = 86_400.0
# or when more rows are deleted than not, and more than this: a live recording that is indexed repeatedly leaves all
# its earlier versions.
MAX_DELETED = 10_000
ROWS_AFTER = (
    "SELECT id, owner, kind, speaker, emotion, transcript_id, {unix_secs},"
    " length(terms) - length(replace(terms, ' ', '')) + 1, embedding"
    " FROM memory_passage WHERE id > %s ORDER BY id LIMIT %s"
)
CHANGED_BETWEEN = (
    "SELECT c.passage_id, p.id, p.embedding FROM memory_change c LEFT JOIN memory_passage p ON p.id = c.passage_id"
    " WHERE c.id > %s AND c.id <= %s"
)
STATE = (
    "SELECT (SELECT max(id) FROM memory_change), (SELECT max(id) FROM memory_passage),"
    " (SELECT encoding FROM memory_vectorencoding)"
)
UNIX_SECS = {"sqlite": "CAST(strftime('%s', said_at) AS INTEGER)", "postgresql": "extract(epoch FROM said_at)::bigint"}


@dataclass
class VectorIndex:
    """Current snapshot of this process, shared by its threads."""

    snapshot: VectorSnapshot = field(default_factory=VectorSnapshot.empty)
    loaded_at: float = -np.inf
    last_ids: tuple[int, int] = (0, 0)  # highest ids of changes and passages at the last synchronisation
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fresh(self) -> VectorSnapshot:
        """Return a snapshot of the current rows; inside a transaction, which may be rolled back, an uncached one."""
        if connection.in_atomic_block:
            return _extended(replace(VectorSnapshot.empty(), encoding=_state()[2]))
        with self.lock:
            if time.monotonic() - self.loaded_at > RELOAD_SECS:
                self._reset()
            last_change, last_passage, encoding = _state()
            newest = last_change, last_passage
            # Lower ids than before: another database, or one that was emptied.
            if newest < self.last_ids or encoding != self.snapshot.encoding:
                self._reset()
                self.snapshot = replace(self.snapshot, encoding=encoding)
            self.last_ids = newest
            if last_change != self.snapshot.last_change:
                self.snapshot = _with_changes(self.snapshot, last_change)
            if last_passage > self.snapshot.last_passage:
                self.snapshot = _extended(self.snapshot)
                if _state()[2] != encoding:
                    # The vectors were replaced while they were read, and are of two encodings.
                    self._reset()
            return self.snapshot

    def clear(self) -> None:
        """Reload everything at the next search."""
        with self.lock:
            self._reset()

    def _reset(self) -> None:
        self.snapshot, self.loaded_at = VectorSnapshot.empty(), time.monotonic()


def prune_changes() -> None:
    """Delete changes older than any process's last reload."""
    before = datetime.now(UTC) - timedelta(seconds=2 * RELOAD_SECS)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM memory_change WHERE made_at < %s", [before.strftime("%Y-%m-%d %H:%M:%S")])


def _state() -> tuple[int, int, str]:
    """Return the highest ids of changes and passages, without a scan, and the encoding of the vectors."""
    with connection.cursor() as cursor:
        cursor.execute(STATE)
        last_change, last_passage, encoding = cursor.fetchone()
    return last_change or 0, last_passage or 0, encoding or ""


def _with_changes(before: VectorSnapshot, last_change: int) -> VectorSnapshot:
    """Apply deletions and backfilled vectors; any other change, or too many deletions, empties the snapshot."""
    empty = replace(VectorSnapshot.empty(), last_change=last_change, encoding=before.encoding)
    if not len(before):
        return empty
    with connection.cursor() as cursor:
        cursor.execute(CHANGED_BETWEEN, [before.last_change, last_change])
        changed = cursor.fetchall()
    if any(passage is None for passage, *_ in changed):
        return empty
    columns = before.columns
    is_alive, has_vector = columns.is_alive.copy(), columns.has_vector.copy()
    rows, is_present = before.rows_of(np.array([passage for passage, *_ in changed], np.int64))
    for row, is_known, (_, current_id, vector) in zip(rows, is_present, changed, strict=True):
        if not is_known:
            continue
        if current_id is None:
            is_alive[row] = False
        elif vector is None or columns.has_vector[row]:
            return empty
        else:
            # Earlier snapshots share the buffer but do not read this row.
            before.vectors[row] = np.frombuffer(vector, np.float16)
            has_vector[row] = True
    n_alive = int(is_alive.sum())
    if len(before) - n_alive > max(n_alive, MAX_DELETED):
        return empty
    return replace(before, columns=replace(columns, is_alive=is_alive, has_vector=has_vector), last_change=last_change)


def _extended(before: VectorSnapshot) -> VectorSnapshot:
    """Append all rows added since ``before``."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM memory_passage WHERE id > %s", [before.last_passage])
        [n_new] = cursor.fetchone()
    # Allocated once: a growing buffer exists twice while it is copied.
    snapshot = replace(before, vectors=_room(before.vectors, len(before), len(before) + n_new))
    for rows in _rows_after(before.last_passage):
        new = _columns(snapshot, rows)
        joined = {
            name: np.concatenate([getattr(snapshot.columns, name), getattr(new, name)])
            for name in Columns.__dataclass_fields__
        }
        vectors = _room(snapshot.vectors, len(snapshot), len(snapshot) + len(rows))
        encoded = [row[-1] if has else bytes(VECTOR_BYTES) for row, has in zip(rows, new.has_vector, strict=True)]
        flat = np.frombuffer(b"".join(encoded), np.float16)
        vectors[len(snapshot) : len(snapshot) + len(rows)] = flat.reshape(len(rows), DIMENSIONS)
        snapshot = replace(snapshot, columns=Columns(**joined), vectors=vectors, last_passage=rows[-1][0])
    return snapshot


def _rows_after(last_passage: int) -> Iterator[list[Row]]:
    # A single % of strftime would be read as a placeholder.
    unix_secs = UNIX_SECS[connection.vendor].replace("%", "%%")
    sql = ROWS_AFTER.format(unix_secs=unix_secs)
    while True:
        with connection.cursor() as cursor:
            cursor.execute(sql, [last_passage, ROWS_PER_FETCH])
            rows = cursor.fetchall()
        if rows:
            yield rows
            last_passage = rows[-1][0]
        if len(rows) < ROWS_PER_FETCH:
            return


def _columns(before: VectorSnapshot, rows: list[Row]) -> Columns:
    ids, owners, kinds, speakers, emotions, transcripts, said_at, n_terms, embeddings = zip(*rows, strict=True)
    code = before.codes.encode
    return columns(
        id=ids,
        owner=map(code, owners),
        kind=map(code, kinds),
        speaker=map(code, speakers),
        emotion=map(code, emotions),
        transcript=[transcript or 0 for transcript in transcripts],
        said_at=said_at,
        n_terms=n_terms,
        has_vector=[embedding is not None and len(embedding) == VECTOR_BYTES for embedding in embeddings],
        is_alive=[True] * len(rows),
    )


def _room(buffer: Vectors, n_used: int, n_needed: int) -> Vectors:
    """Return the buffer, or a copy with half as much to spare, so that growth does not copy it each time.

    Spare pages use no memory until they are written.
    """
    if n_needed <= len(buffer):
        return buffer
    grown = np.empty((n_needed * 3 // 2, DIMENSIONS), np.float32)
    grown[:n_used] = buffer[:n_used]
    return grown

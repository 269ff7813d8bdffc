"""Finds passages by their words: FTS5 on SQLite, tsvector on PostgreSQL. Both only say where each word is.

What the words are worth is counted alike for both, and over what may be seen: others' passages change no score.
"""

from dataclasses import dataclass

import numpy as np
from django.db import connection

from chat.rag.search.terms import content_words, names_in
from chat.rag.vectors.snapshot import Ids, Mask, Rows, Scores, VectorSnapshot

# A word is quoted, so that none can be an operator of the query language.
PLACES = {
    "sqlite": ("SELECT rowid FROM memory_text WHERE memory_text MATCH %s", '"{}"'),
    "postgresql": ("SELECT id FROM memory_passage WHERE search @@ to_tsquery('english', %s)", "'{}'"),
}
# PostgreSQL takes words of 2,046 bytes and refuses whatever holds a longer one.
MAX_WORD_CHARS = 500


@dataclass(frozen=True)
class Matches:
    """``hits``: the rows with one of the words, and the share of what all words are worth that each has.

    ``has_name`` is a mask over all rows: which have a word that the question writes as a name.
    """

    hits: tuple[Rows, Scores]
    has_name: Mask


def matches(text: str, snapshot: VectorSnapshot, allowed: Mask) -> Matches:
    """Among the allowed rows.

    A word is worth the more the fewer rows have it (the inverse document frequency of BM25). One that none has counts
    like one that a single row has: it makes all matches poorer and none better.
    """
    worth = np.zeros(len(snapshot), np.float32)
    has_name = np.zeros(len(snapshot), np.bool_)
    total = 0.0
    words, names = [word for word in content_words(text) if len(word) <= MAX_WORD_CHARS], names_in(text)
    n_allowed = int(allowed.sum())
    for word in words:
        rows, found = snapshot.rows_of(_places(word))
        rows = rows[found]
        rows = rows[allowed[rows]]
        n_rows = max(1, len(rows))
        value = float(np.log1p((n_allowed - n_rows + 0.5) / (n_rows + 0.5)))
        total += value
        worth[rows] += value
        has_name[rows] |= word in names
    hits = np.flatnonzero(worth)
    return Matches((hits, worth[hits] / np.float32(total or 1.0)), has_name)


def _places(word: str) -> Ids:
    sql, quoted = PLACES[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(sql, [quoted.format(word)])
        rows = cursor.fetchall()
    return np.fromiter((row[0] for row in rows), np.int64, len(rows))

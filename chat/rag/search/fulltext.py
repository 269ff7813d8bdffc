"""Full-text search: FTS5 on SQLite, tsvector on PostgreSQL. Both only return the rows that contain a word.

Weights are computed here, alike for both and over the allowed rows, so that passages of other owners change no score.
"""

from dataclasses import dataclass

import numpy as np
from django.db import connection

from chat.rag.search.terms import content_words, names_in
from chat.rag.vectors.snapshot import Ids, Mask, Rows, Scores, VectorSnapshot

# Words are quoted, so that none is read as an operator of the query language.
WORD_QUERIES = {
    "sqlite": ("SELECT rowid FROM memory_text WHERE memory_text MATCH %s", '"{}"'),
    "postgresql": ("SELECT id FROM memory_passage WHERE search @@ to_tsquery('english', %s)", "'{}'"),
}
# PostgreSQL rejects queries with a word of more than 2,046 bytes.
MAX_WORD_CHARS = 500


@dataclass(frozen=True)
class Matches:
    """``hits``: rows with one of the words, and the share of the total word weight that each matches.

    ``has_name``: mask over all rows that contain a word which the question writes as a name.
    """

    hits: tuple[Rows, Scores]
    has_name: Mask


def matches(text: str, snapshot: VectorSnapshot, allowed: Mask) -> Matches:
    """Match the words of ``text`` among the allowed rows.

    A word weighs its inverse document frequency (BM25). A word in no row weighs like one in a single row: it lowers
    the share of all matches.
    """
    weights = np.zeros(len(snapshot), np.float32)
    has_name = np.zeros(len(snapshot), np.bool_)
    total = 0.0
    names = names_in(text)
    n_allowed = int(allowed.sum())
    for word in (word for word in content_words(text) if len(word) <= MAX_WORD_CHARS):
        rows, is_present = snapshot.rows_of(_passage_ids(word))
        rows = rows[is_present]
        rows = rows[allowed[rows]]
        n_rows = max(1, len(rows))
        weight = float(np.log1p((n_allowed - n_rows + 0.5) / (n_rows + 0.5)))
        total += weight
        weights[rows] += weight
        has_name[rows] |= word in names
    hits = np.flatnonzero(weights)
    return Matches((hits, weights[hits] / np.float32(total or 1.0)), has_name)


def _passage_ids(word: str) -> Ids:
    sql, quoted = WORD_QUERIES[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(sql, [quoted.format(word)])
        rows = cursor.fetchall()
    return np.fromiter((row[0] for row in rows), np.int64, len(rows))

"""Finds passages by their words: FTS5 on SQLite, tsvector on PostgreSQL. Both only say where each word is.

What the words are worth is counted alike for both, and over what may be seen: others' passages change no score.
"""

import numpy as np
from django.db import connection

from chat.memory.snapshot import Ids, Mask, Rows, Scores, Snapshot
from chat.memory.words import content_words

# A word is quoted, so that none can be an operator of the query language.
PLACES = {
    "sqlite": ("SELECT rowid FROM memory_text WHERE memory_text MATCH %s", '"{}"'),
    "postgresql": ("SELECT id FROM memory_passage WHERE search @@ to_tsquery('english', %s)", "'{}'"),
}


def matches(text: str, snapshot: Snapshot, allowed: Mask) -> tuple[Rows, Scores]:
    """The allowed rows with one of the text's words, and the share of what all its words are worth that each has.

    A word is worth the more the fewer rows have it (the inverse document frequency of BM25). One that none has counts
    like the others on average: it makes all matches poorer and none better.
    """
    worth = np.zeros(len(snapshot), np.float32)
    values = []
    words = content_words(text)
    for word in words:
        rows, found = snapshot.rows_of(_places(word))
        rows = rows[found]
        rows = rows[allowed[rows]]
        if len(rows):
            values.append(float(np.log1p((allowed.sum() - len(rows) + 0.5) / (len(rows) + 0.5))))
            worth[rows] += values[-1]
    hits = np.flatnonzero(worth)
    total = sum(values) * len(words) / max(1, len(values))
    return hits, worth[hits] / np.float32(total or 1.0)


def _places(word: str) -> Ids:
    sql, quoted = PLACES[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(sql, [quoted.format(word)])
        rows = cursor.fetchall()
    return np.fromiter((row[0] for row in rows), np.int64, len(rows))

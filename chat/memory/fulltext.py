"""Finds passages by their words: FTS5 on SQLite (BM25), tsvector on PostgreSQL. Returns scores, ranks nothing.

Which passages may be seen is decided by the caller, over everything that matches, before anything is cut off.
"""

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from chat.memory.snapshot import Ids, Scores
from chat.memory.words import content_words

# Every word is quoted, so that none can be an operator of the query language.
SQLITE = "SELECT rowid, -bm25(memory_text) FROM memory_text WHERE memory_text MATCH %s"
POSTGRESQL = (
    "SELECT id, ts_rank_cd(search, query, 1) FROM memory_passage, to_tsquery('english', %s) AS query"
    " WHERE search @@ query"
)


def matches(text: str) -> tuple[Ids, Scores]:
    """The ids of all passages with one of the text's words, and how well each matches; in no order."""
    words = content_words(text)
    if not words:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(POSTGRESQL, [" | ".join(f"'{word}'" for word in words)])
        else:
            cursor.execute(SQLITE, [" OR ".join(f'"{word}"' for word in words)])
        found: NDArray[np.float64] = np.array(cursor.fetchall(), np.float64).reshape(-1, 2)
    return found[:, 0].astype(np.int64), found[:, 1].astype(np.float32)

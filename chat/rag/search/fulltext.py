"""Full-text search: FTS5 on SQLite, tsvector on PostgreSQL. Both only return the rows that contain a word.

Weights are computed here, alike for both and over the allowed rows, so that passages of other owners change no score.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from django.db import connection

from chat.rag.search.terms import content_words, names_in
from chat.rag.time_words import form_of_time_in_question
from chat.rag.vectors.snapshot import Ids, Mask, Rows, Scores, VectorSnapshot
from chat.rag.words import with_variants

# Returns the rows that have a word form in a column: "terms", their own words, or "context", those around them.
WordLookup = Callable[[str, str], Rows]

# Words are quoted, so that none is read as an operator of the query language.
WORD_QUERIES = {
    ("sqlite", "terms"): ("SELECT rowid FROM memory_text WHERE memory_text MATCH %s", 'terms : "{}"'),
    ("sqlite", "context"): ("SELECT rowid FROM memory_text WHERE memory_text MATCH %s", 'context_terms : "{}"'),
    ("postgresql", "terms"): ("SELECT id FROM memory_passage WHERE search @@ %s::tsquery", "'{}'"),
    ("postgresql", "context"): ("SELECT id FROM memory_passage WHERE search_context @@ %s::tsquery", "'{}'"),
}
# Of BM25: how much a word counts in a short passage more than in a long one. A word counts once, however often it
# occurs: lines are short.
K1, B = 1.2, 0.75
CONTEXT_WEIGHT = 0.5  # of a word in the surroundings of a passage
TIME_SHARE = 0.25  # of a passage that names a time, for a question that asks for one


@dataclass(frozen=True)
class Matches:
    """Rows with words of the question.

    ``hits``: rows with one of the words, and their BM25 as a share of the total word weight of the question; a short
    passage with all words has more than 1. ``in_text``: rows that have one of the words themselves, not only around
    them. ``has_name``: rows that contain a word which the question writes as a name.
    """

    hits: tuple[Rows, Scores]
    in_text: Mask
    has_name: Mask


def matches(text: str, snapshot: VectorSnapshot, allowed: Mask, rows_with: WordLookup) -> Matches:
    """Match the words of ``text`` among the allowed rows, to which ``rows_with`` is limited.

    A word weighs its inverse document frequency (BM25). A word in no row weighs like one in a single row: it lowers
    the share of all matches.
    """
    weights = np.zeros(len(snapshot), np.float32)
    in_text, has_name = np.zeros((2, len(snapshot)), np.bool_)
    total = 0.0
    names = names_in(text)
    n_allowed = int(allowed.sum())
    lengths = snapshot.columns.n_terms
    gain = (K1 + 1) / (1 + K1 * (1 - B + B * lengths / max(1.0, float(lengths[allowed].mean()))))
    for word in content_words(text):
        for form in with_variants(word):
            rows, around = (rows_with(form, column) for column in ("terms", "context"))
            n_rows = max(1, len(rows))
            weight = float(np.log1p((n_allowed - n_rows + 0.5) / (n_rows + 0.5)))
            total += weight
            weights[rows] += weight * gain[rows]
            weights[around] += weight * CONTEXT_WEIGHT
            in_text[rows] = True
            has_name[rows] |= word in names
    shares = weights / np.float32(total or 1.0)
    if time_form := form_of_time_in_question(text):
        shares[rows_with(time_form, "terms")] += TIME_SHARE
    hits = np.flatnonzero(shares)
    return Matches((hits, shares[hits]), in_text, has_name)


def stored_words(snapshot: VectorSnapshot, allowed: Mask) -> WordLookup:
    """Look words up in the text index of the database."""

    def rows_with(word: str, column: str) -> Rows:
        sql, quoted = WORD_QUERIES[connection.vendor, column]
        with connection.cursor() as cursor:
            cursor.execute(sql, [quoted.format(word)])
            ids: Ids = np.fromiter((row[0] for row in cursor.fetchall()), np.int64)
        rows, is_present = snapshot.rows_of(ids)
        rows = rows[is_present]
        return rows[allowed[rows]]

    return rows_with

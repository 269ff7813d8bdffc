"""Which of the allowed rows have to do with the question at all. From a small store even the best may have nothing.

Knows cosines, shares of words and where a question points; ranks nothing.
"""

import numpy as np
from django.conf import settings

from chat.rag.search.fulltext import Matches
from chat.rag.search.query_understanding import QueryHints
from chat.rag.vectors.snapshot import Mask, Rows, Scores

# A row with this share of what the question's words are worth is about it, however different it sounds as a whole.
MIN_SHARE = 0.5


def related(n_rows: int, vector: tuple[Rows, Scores], text: Matches, understood: QueryHints, meant: list[Mask]) -> Mask:
    """Near in meaning, or with half of the words, or with a name of the question, or where a question points that does
    nothing but point ("What did Sarah say yesterday?")."""
    mask, is_compared = np.zeros(n_rows, np.bool_), np.zeros(n_rows, np.bool_)
    rows, similarities = vector
    mask[rows] = similarities >= settings.RAG_MIN_SIMILARITY
    is_compared[rows] = True
    found, shares = text.hits
    enough = (shares >= MIN_SHARE) | text.has_name[found]
    # What has no vector yet cannot be near: its words have to do.
    enough |= ~is_compared[found]
    mask[found[enough]] = True
    if understood.only_points:
        mask |= np.logical_or.reduce(meant) if meant else True
    return mask

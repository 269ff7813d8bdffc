"""Relevance threshold: drops rows unrelated to the question, which in a small store may be the best ones."""

import numpy as np
from django.conf import settings

from chat.rag.search.fulltext import Matches
from chat.rag.search.query_understanding import QueryHints
from chat.rag.vectors.snapshot import Mask, Rows, Scores

# A row that matches this share of the question's word weight is related, whatever its similarity.
MIN_SHARE = 0.5


def related(n_rows: int, vector: tuple[Rows, Scores], text: Matches, hints: QueryHints, hinted: list[Mask]) -> Mask:
    """Return the rows that are similar, match half of the word weight, or contain a name of the question.

    For a question without a subject ("What did Sarah say yesterday?") all rows that its hints point to are related.
    """
    mask, is_compared = np.zeros(n_rows, np.bool_), np.zeros(n_rows, np.bool_)
    rows, similarities = vector
    mask[rows] = similarities >= settings.RAG_MIN_SIMILARITY
    is_compared[rows] = True
    matched, shares = text.hits
    enough = (shares >= MIN_SHARE) | text.has_name[matched]
    # Rows without a vector have no similarity; a matching word suffices.
    enough |= ~is_compared[matched]
    mask[matched[enough]] = True
    if hints.has_no_subject:
        mask |= np.logical_or.reduce(hinted) if hinted else True
    return mask

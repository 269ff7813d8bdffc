"""Relevance threshold: drops rows unrelated to the question, which in a small store may be the best ones."""

from dataclasses import dataclass

import numpy as np

from chat.rag.search.fulltext import Matches
from chat.rag.search.query_understanding import QueryHints
from chat.rag.search.terms import subject_words
from chat.rag.vectors.snapshot import Mask, Rows, Scores

# A row that matches this share of the question's word weight is related, whatever its similarity.
MIN_SHARE = 0.5
# Evidence beside the similarity: matching words, and the speaker or the time that the question names.
WEIGHT_SHARE, GAIN_HINTED = 0.5, 0.15
# The best of many unrelated passages is nearer than the best of few: by this much for ten times as many. Calibrated,
# like the setting, with bench.retrieval: of questions about something else at most 5 % bring anything.
RISE, RISE_FROM, FEWEST, MOST = 0.11, 60, 10, 10_000


@dataclass(frozen=True)
class Relevance:
    """``mask``: the related rows. They have at least ``floor`` of ``evidence``, or another reason."""

    mask: Mask
    evidence: Scores
    floor: float = 0.0


def relevance(
    text: str,
    n_rows: int,
    vector: tuple[Rows, Scores],
    words: Matches,
    hints: QueryHints,
    hinted: list[Mask],
    min_similarity: float,
) -> Relevance:
    """Find the rows that are similar, match half of the word weight, or contain a name of the question.

    For a question without a subject ("What did Sarah say yesterday?") all rows that its hints point to are related;
    to thanks and greetings none is.
    """
    evidence = np.zeros(n_rows, np.float32)
    if hints.has_no_subject:
        every: Mask = np.ones(n_rows, np.bool_)
        return Relevance(np.logical_or.reduce(hinted) if hinted else every, evidence)
    mask, is_compared = np.zeros(n_rows, np.bool_), np.zeros(n_rows, np.bool_)
    rows, similarities = vector
    matched, shares = words.hits
    has_subject = bool(subject_words(text))  # thanks and greetings have none
    evidence[rows] = similarities
    is_compared[rows] = True
    if has_subject:
        evidence[matched] += WEIGHT_SHARE * shares
        # Rows without a vector have no similarity; a matching word suffices.
        enough = (shares >= MIN_SHARE) | words.has_name[matched] | ~is_compared[matched]
        mask[matched[enough & words.in_text[matched]]] = True
    for hinted_rows in hinted:
        evidence[hinted_rows] += GAIN_HINTED
    # The more passages there are, the more of them look alike to any question; measured from a store of 60 on.
    n_compared = min(max(len(rows), FEWEST), MOST)
    floor = min_similarity + RISE * float(np.log10(n_compared / RISE_FROM))
    if has_subject or min_similarity < 0:
        mask |= is_compared & (evidence >= floor)
    return Relevance(mask, evidence, floor)

"""Search of a conversation's own earlier messages: with the scores and the relevance threshold of memories, over the
passages of one dialogue alone.

Knows no prompts and no budget.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

import numpy as np

from chat.models import Role
from chat.prompting.recalled import Recall, RecalledPassage
from chat.rag.query import RetrievalQuery, SourceFilters
from chat.rag.search.fulltext import WordLookup
from chat.rag.search.hybrid import GAIN_NEWEST, MIN_SIMILARITY, Rankings, hinted_rows
from chat.rag.search.ordering import DuplicateFilter, Points, best
from chat.rag.search.query_understanding import QueryHints, understand_query
from chat.rag.search.relevance import relevance
from chat.rag.search.results import Hit
from chat.rag.search.terms import names_in, subject_words
from chat.rag.vectors import embedding
from chat.rag.vectors.embedding import DIMENSIONS, Vectors
from chat.rag.vectors.snapshot import Mask, Rows, TextCodes, VectorSnapshot, columns
from chat.rag.words import words
from chat.recall.passages import N_FIRST, SHORT_REPLY_CHARS, SaidPassage
from chat.recall.references import References, references_in
from chat.recall.statements import is_correction, is_question

EDGE_CHARS = 1_000  # of a long question: what it is about stands at its beginning or its end
MAX_FOUND = 64
# Factors of a score. What the user stated is a better source than what the assistant made of it, and an earlier
# question repeats the words of the present one without its answer.
ASSISTANT_FACTOR, QUESTION_FACTOR = 0.6, 0.5
# The similarity from which on a message is recalled: half of that for memories, since questions of a conversation are
# mostly about it. Passages with less than this part of the best score are noise beside it.
MIN_RECALLED, MIN_OF_BEST = 0.1, 0.5
# Where no passage has so much of the question's words or so much of its meaning, only the best few are returned: of the
# others one is as good as the next, and a small model answers with any of them.
SURE_WORDS, SURE_SIMILARITY, MAX_UNSURE = 0.25, 0.4, 4
# A correction is as good as what it corrects if it is about the same: by its words, or by this cosine.
ABOUT_THE_SAME = 0.9
OPENING = re.compile(r"^[^:.!?\d]{1,40}:\s+")  # "By the way:" is no part of a statement
N_CORRECTED = 6


@dataclass(frozen=True, kw_only=True)
class _Matches:
    """Rows of a snapshot that match, with all their scores."""

    references: References
    rankings: Rankings
    scores: Points
    is_related: Mask


def search(question: str, passages: Sequence[SaidPassage], *, now: datetime, n_searched: int | None = None) -> Recall:
    """Return the passages that bear on the question, best first; without vectors by their words alone.

    Of the messages after the first ``n_searched``, which stand near the question, only corrections of what is recalled
    are returned; but passages that are far worse than the best of them are noise as well.
    """
    if not passages:
        return Recall()
    encoding = embedding.target_encoding()
    snapshot = _snapshot(passages, encoding)
    if len(question) > 2 * EDGE_CHARS:
        question = f"{question[:EDGE_CHARS]} {question[-EDGE_CHARS:]}"
    matches = _match(question, passages, snapshot, now)
    _raise_replies(matches, passages)
    _drop_acknowledgements(matches, passages)
    is_far = np.array([n_searched is None or passage.position < n_searched for passage in passages])
    scores, corrects = _with_corrections(matches, passages, snapshot, is_far)
    rows = np.flatnonzero(matches.is_related & (scores > 0))
    if not matches.references.has_no_subject:
        rows = rows[scores[rows] >= MIN_OF_BEST * scores[rows].max(initial=0.0)]
    rows = rows[is_far[rows] | corrects[rows]]
    order = best(rows, scores[rows], len(rows)).tolist()
    duplicates = DuplicateFilter()
    distinct = list(
        islice((row for row in order if duplicates.is_new(passages[row].role, passages[row].text)), MAX_FOUND)
    )
    hits = matches.rankings.hits(snapshot, scores, np.array(distinct, np.intp), {})
    if not (matches.references.has_no_subject or any(map(_is_sure, hits))):
        hits = hits[:MAX_UNSURE]
    recalled = tuple(
        RecalledPassage(
            position=passages[hit.passage_id].position,
            role=passages[hit.passage_id].role,
            text=passages[hit.passage_id].text,
            said_at=passages[hit.passage_id].said_at,
            score=hit.score,
            similarity=hit.parts["vector"],
            words=hit.parts["text"],
        )
        for hit in hits
    )
    return Recall(passages=recalled, problem=_problem(snapshot, encoding), names_times=matches.references.names_times)


def _is_sure(hit: Hit) -> bool:
    return (hit.parts["text"] or 0.0) >= SURE_WORDS or (hit.parts["vector"] or 0.0) >= SURE_SIMILARITY


def _problem(snapshot: VectorSnapshot, encoding: str) -> str:
    n_without = int((~snapshot.columns.has_vector).sum())
    if not n_without:
        return ""
    if n_without == len(snapshot) and (reason := embedding.unavailable_reason_without_loading()):
        return f"searched by words alone: {reason}"
    return f"{n_without} of {len(snapshot)} passages have no vector yet and were searched by words alone"


def _snapshot(passages: Sequence[SaidPassage], encoding: str) -> VectorSnapshot:
    """Build a snapshot whose row numbers, and ids, are those of ``passages``."""
    codes, n_rows = TextCodes(), len(passages)
    none = [codes.encode("")] * n_rows
    has_vector = [passage.part.encoding == encoding for passage in passages]
    vectors: Vectors = np.zeros((n_rows, DIMENSIONS), np.float32)
    for row, passage in enumerate(passages):
        if has_vector[row]:
            vectors[row] = np.frombuffer(passage.part.embedding, "<f2")
    times = [int(passage.said_at.timestamp()) if passage.said_at else 0 for passage in passages]
    filters = columns(
        id=range(n_rows),
        owner=none,
        kind=none,
        speaker=[codes.encode(passage.role.value) for passage in passages],
        emotion=none,
        transcript=[0] * n_rows,
        said_at=times,
        n_terms=[passage.part.terms.count(" ") + 1 for passage in passages],
        has_vector=has_vector,
        is_alive=[True] * n_rows,
    )
    return VectorSnapshot(filters, vectors, codes, encoding=encoding)


def _words_of(passages: Sequence[SaidPassage]) -> WordLookup:
    texts = {
        "terms": [f" {passage.part.terms} " for passage in passages],
        "context": [f" {passage.part.context_terms} " for passage in passages],
    }

    def rows_with(word: str, column: str) -> Rows:
        separated = f" {word} "
        return np.array([row for row, text in enumerate(texts[column]) if separated in text], np.intp)

    return rows_with


def _match(question: str, passages: Sequence[SaidPassage], snapshot: VectorSnapshot, now: datetime) -> _Matches:
    references = references_in(question, now)
    hints = _hints(question, references, now)
    query = RetrievalQuery(text=question, top_k=MAX_FOUND, filters=SourceFilters(), owner=None, now=now)
    allowed: Mask = np.ones(len(snapshot), np.bool_)
    rankings = Rankings.of(query, snapshot, allowed, hints, _words_of(passages))
    hinted = hinted_rows(query, snapshot, allowed, hints)
    if references.span:
        start, end = (moment.timestamp() for moment in references.span)
        hinted.append((snapshot.columns.said_at >= start) & (snapshot.columns.said_at <= end))
    first, last = _edge_rows(passages, references)
    hinted += [edge for edge in (first, last) if edge.any()]
    if references.has_no_subject:
        hinted = [np.logical_and.reduce(hinted)]
    scores = rankings.scores(snapshot, hints, hinted)
    # Of a question without a subject all that its hints point to counts, by meaning or not.
    judged = relevance(
        question, len(snapshot), rankings.vector, rankings.words, hints, hinted, min_similarity=MIN_RECALLED
    )
    is_related = judged.mask
    scores[is_related & ~np.isfinite(scores)] = MIN_SIMILARITY
    scores[first] += GAIN_NEWEST
    for row, passage in enumerate(passages):
        if passage.role != references.role:
            scores[row] *= ASSISTANT_FACTOR if passage.role == Role.ASSISTANT else 1.0
        if references.role is None and passage.role == Role.USER and is_question(passage.text):
            scores[row] *= QUESTION_FACTOR
    return _Matches(references=references, rankings=rankings, scores=scores, is_related=is_related)


def _hints(question: str, references: References, now: datetime) -> QueryHints:
    hints = understand_query(question, today=now.date(), speakers=(), emotions=())
    span = hints.span if hints.span and hints.span.end and hints.span.end < now.date() else None
    return replace(
        hints,
        span=span,  # "now" and "today" point to no message more than to others
        speakers=(references.role.value,) if references.role else (),
        has_no_subject=references.has_no_subject or (span is not None and hints.has_no_subject),
    )


def _edge_rows(passages: Sequence[SaidPassage], references: References) -> tuple[Mask, Mask]:
    """Return the earliest and the newest rows of the speaker, as far as the question means them."""
    rows = [row for row, passage in enumerate(passages) if references.role in (None, passage.role)]
    first: Mask = np.zeros(len(passages), np.bool_)
    last = first.copy()
    first[rows[:N_FIRST] if references.is_first else []] = True
    last[rows[-N_FIRST:] if references.is_last else []] = True
    return first, last


def _raise_replies(matches: _Matches, passages: Sequence[SaidPassage]) -> None:
    """Raise the score of answers to that of their questions, when the user asks about the assistant's words."""
    if matches.references.role != Role.ASSISTANT:
        return
    by_position: dict[int, float] = {}
    for row in np.flatnonzero(matches.is_related).tolist():
        if passages[row].role == Role.USER:
            by_position[passages[row].position] = float(matches.scores[row])
    for row, passage in enumerate(passages):
        score = by_position.get(passage.position - 1)
        if passage.role == Role.ASSISTANT and score is not None:
            matches.is_related[row] = True
            matches.scores[row] = max(matches.scores[row], score)


def _drop_acknowledgements(matches: _Matches, passages: Sequence[SaidPassage]) -> None:
    """Leave out short replies to statements, which are found by the statement that they reply to."""
    if matches.references.role == Role.ASSISTANT:
        return
    for row in np.flatnonzero(matches.is_related).tolist():
        passage, before = passages[row], passages[row - 1] if row else None
        is_short = passage.role == Role.ASSISTANT and len(passage.text) <= SHORT_REPLY_CHARS
        if is_short and before and before.role == Role.USER and not is_question(before.text):
            matches.is_related[row] = False


def _with_corrections(
    matches: _Matches, passages: Sequence[SaidPassage], snapshot: VectorSnapshot, is_far: Mask
) -> tuple[Points, Mask]:
    """Raise the user's later corrections of what was found to its score: they need not be like the question. Also
    return which rows correct a far one."""
    scores = matches.scores.copy()
    corrects: Mask = np.zeros(len(passages), np.bool_)
    rows = np.flatnonzero(matches.is_related & (scores > 0))
    corrections = [
        row for row, passage in enumerate(passages) if passage.role == Role.USER and is_correction(passage.text)
    ]
    for row in best(rows, scores[rows], N_CORRECTED).tolist():
        if passages[row].role != Role.USER:
            continue
        for later in corrections:
            if later > row and _is_about_the_same(passages, snapshot, row, later):
                matches.is_related[later] = True
                scores[later] = max(scores[later], scores[row])
                corrects[later] |= is_far[row]
                # Beside a correction that repeats all of it ("740, not 690") the old value would only be taken for it.
                if _repeats(passages[later].text, passages[row].text):
                    matches.is_related[row] = False
    return scores, corrects


def _repeats(correction: str, text: str) -> bool:
    subject = subject_words(OPENING.sub("", text))
    return len(subject) > 1 and set(subject).issubset(words(correction))


def _is_about_the_same(passages: Sequence[SaidPassage], snapshot: VectorSnapshot, row: int, later: int) -> bool:
    if snapshot.columns.has_vector[row] and snapshot.columns.has_vector[later]:
        cosine = float(snapshot.vectors[row] @ snapshot.vectors[later])
        if cosine >= ABOUT_THE_SAME:
            return True
    subject = set(subject_words(passages[row].text))
    shared = subject.intersection(subject_words(passages[later].text))
    return len(shared) >= 2 or bool(shared & names_in(passages[row].text))

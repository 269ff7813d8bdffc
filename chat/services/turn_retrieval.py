"""Step 3 of a turn: retrieve passages for its question, and record the retrieval with the answer.

The record is a copy: it says which passages an answer rests on after the memories themselves were deleted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from django.utils import timezone

from chat.prompting.message_groups import DialogueMessage
from chat.rag.query import RetrievalQuery, RetrievalResult, SourceFilters
from chat.rag.retrieval import retriever
from chat.rag.sources import Source
from chat.services.questions.query_rewriting import earlier_questions, rewrite_query

MAX_QUERY_CHARS = 2_000
# A beginning is enough to recognise a passage that was not shown; those shown are recorded whole, as sources.
MAX_HIT_CHARS = 300
CUT_MARK = " …"
N_REJECTED = 10  # best passages below the relevance threshold, for the admin's page of the retrieval


@dataclass(frozen=True, kw_only=True)
class TurnRetrieval:
    query: RetrievalQuery
    result: RetrievalResult

    def as_columns(self, sources: Sequence[Source]) -> dict[str, Any]:
        """Columns of a ``Retrieval``. ``sources`` are those of the prompt, the client's documents included."""
        return {
            "query": self.query.text,
            "filters": {"top_k": self.query.top_k} | asdict(self.query.filters),
            "understood": dict(self.result.understood),
            "hits": [
                *(_hit(source, sources) for source in self.result.sources),
                *(_hit(source, ()) | {"rejected": True} for source in self.result.rejected),
            ],
            "sources": [source.as_wire() for source in sources],
            "n_hits": len(self.result.sources),
            "latency_ms": self.result.latency_ms,
            "error": self.result.error,
            "note": self.result.note,
        }


def retrieve(
    question: str,
    *,
    dialogue: Sequence[DialogueMessage],
    owner: str,
    filters: SourceFilters,
    top_k: int,
    is_enabled: bool = True,
) -> TurnRetrieval:
    """Retrieve with the question, rewritten to name what it refers to in ``dialogue``. Waits RAG_TIMEOUT_SECS at
    most; failures are reported in the result."""
    rewritten = rewrite_query(question, earlier_questions(dialogue))
    query = RetrievalQuery(
        text=rewritten.text[:MAX_QUERY_CHARS],
        top_k=top_k,
        filters=filters,
        owner=owner,
        now=timezone.localtime(),
        n_rejected=N_REJECTED,
    )
    result = retriever.retrieve(query) if is_enabled else RetrievalResult()
    if rewritten.refers_to:
        result = replace(result, understood={"refers_to": rewritten.refers_to, **result.understood})
    return TurnRetrieval(query=query, result=result)


def _hit(source: Source, sources: Sequence[Source]) -> dict[str, Any]:
    identity = (source.kind, source.doc_id, source.time)
    same = (candidate for candidate in sources if (candidate.kind, candidate.doc_id, candidate.time) == identity)
    # The prompt shows the source, or as much of its beginning as the token budget allowed.
    label = next((copy.label for copy in same if source.text.startswith(copy.text.removesuffix(CUT_MARK))), "")
    text = source.text if len(source.text) <= MAX_HIT_CHARS else source.text[:MAX_HIT_CHARS].rstrip() + CUT_MARK
    return source.as_wire() | {"label": label, "text": text, "scores": dict(source.scores)}

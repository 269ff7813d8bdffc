"""Sources that an answer rests on: by the labels that the model wrote, and by the sentences that a source supports."""

from uuid import UUID

from chat.models import Message
from chat.rag.search.attribution import Attribution, attributions
from inference.engine.text.citation_filter import citation_labels
from inference.models import ENDED, Generation

MAX_CACHED = 4_096
# By ended generation, or by message for a copy of one: neither changes. Places and labels alone, no texts.
_attributed: dict[UUID, list[Attribution]] = {}


def cited_labels(text: str) -> set[str]:
    """Return the labels that the text names outside of code: ``[1]``, ``[1, 3]``, ``[2-4]``."""
    return {str(number) for number in citation_labels(text)}


def attributions_of(message: Message | None, generation: Generation | None) -> list[Attribution]:
    """Return the sentences of an ended answer that one of its sources supports.

    An answer that is not stored has no message, the copy of an answer no generation.
    """
    retrieval = getattr(message, "retrieval", None)
    sources = retrieval.sources if retrieval else generation.details.get("sources", []) if generation else []
    if not sources or (generation and generation.status not in ENDED):
        return []
    key = generation.pk if generation else message.pk if message else None
    cached = _attributed.get(key) if key else None
    if cached is not None:
        return cached
    text = generation.text if generation else message.text if message else ""
    attributed = attributions(text, sources, retrieval.query if retrieval else "")
    if len(_attributed) >= MAX_CACHED:
        _attributed.clear()
    if key:
        _attributed[key] = attributed
    return attributed


def citations_of(message: Message) -> set[str]:
    """Return the labels of the sources that an answer rests on."""
    attributed = attributions_of(message, message.generation)
    return cited_labels(message.text).union(attribution.label for attribution in attributed)

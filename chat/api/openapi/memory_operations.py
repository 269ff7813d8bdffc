"""Operations of the memory store: the endpoints of the RAG service."""

from chat.api.openapi.operation import LIMIT, PAGE, STORE_ERRORS, Operation, store_query
from chat.schemas.memories import answers as memory
from chat.schemas.memories.bodies import CountBody, NoteBody, NoteSearchBody, SearchBody, TranscriptBody

MEMORY_OPERATIONS = (
    Operation(
        "memory-search-semantic",
        "post",
        "/search/semantic",
        "Search memories",
        "memories",
        memory.SearchAnswer,
        SearchBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-search-old",
        "post",
        "/search",
        "Search memories (older form of the answer)",
        "memories",
        memory.OldSearchAnswer,
        SearchBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-index",
        "post",
        "/index/transcript",
        "Store a transcript, or replace it",
        "memories",
        memory.IndexAnswer,
        TranscriptBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-add",
        "post",
        "/memory/add",
        "Store a note",
        "memories",
        memory.NoteIdAnswer,
        NoteBody,
        errors=STORE_ERRORS,
    ),
    store_query(
        "memory-list", "/memory/list", "Notes, newest first", memory.NoteListAnswer, tag="memories", parameters=PAGE
    ),
    Operation(
        "memory-search",
        "post",
        "/memory/search",
        "Search notes",
        "memories",
        memory.NoteSearchAnswer,
        NoteSearchBody,
        errors=STORE_ERRORS,
    ),
    store_query("memory-stats", "/memory/stats", "How many memories there are", memory.StatsAnswer, tag="memories"),
    Operation(
        "memory-delete",
        "delete",
        "/memory/{memory_id}",
        "Delete a note",
        "memories",
        memory.NoteIdAnswer,
        errors=(404, 503),
    ),
    store_query(
        "transcripts-recent",
        "/transcripts/recent",
        "Transcripts, last recorded first",
        memory.TranscriptListAnswer,
        tag="memories",
        parameters=(LIMIT,),
    ),
    store_query(
        "transcripts-speakers", "/transcripts/speakers", "Names of all speakers", memory.SpeakersAnswer, tag="memories"
    ),
    Operation(
        "transcripts-count",
        "post",
        "/transcripts/count",
        "Count transcripts",
        "memories",
        memory.CountAnswer,
        CountBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "transcript",
        "get",
        "/transcript/{job_id}",
        "One transcript with its segments",
        "memories",
        memory.WholeTranscriptAnswer,
        errors=(404, 503),
    ),
    Operation(
        "transcript",
        "delete",
        "/transcript/{job_id}",
        "Delete a transcript",
        "memories",
        memory.TranscriptIdAnswer,
        errors=(404, 503),
    ),
)

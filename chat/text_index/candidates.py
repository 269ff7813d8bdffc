"""Subqueries for the rows that may contain a text; a search adds one to its own conditions, which compare the texts.

SQLite has a table of trigrams, which triggers keep. PostgreSQL has indexes of pg_trgm over the columns themselves.
Without candidates a search reads the texts: where that extension is missing, while rows are still to be indexed, and
for texts that are too short or occur too often.
"""

from dataclasses import dataclass

from django.db import connection
from django.db.models.expressions import RawSQL

GRAM_CHARS = 3
MOST_GRAMS = 12  # looked up for one text: few rows have all of these but not the text
# Of a text that occurs more often, the first page is full before its candidates are listed. Counts go to one more.
MOST_CANDIDATES = {"sqlite": 100_000, "postgresql": 20_000}

CONVERSATIONS, MESSAGES, TITLED, COUNT = "conversations", "messages", "titled", "count"
SQLITE = {
    CONVERSATIONS: """
        SELECT conversation_id FROM chat_text_source
        WHERE id IN (SELECT rowid FROM chat_text_grams WHERE chat_text_grams MATCH %s)""",
    MESSAGES: """
        SELECT message_id FROM chat_text_source
        WHERE message_id <> '' AND id IN (SELECT rowid FROM chat_text_grams WHERE chat_text_grams MATCH %s)""",
    TITLED: """
        SELECT conversation_id FROM chat_text_source
        WHERE message_id = '' AND id IN (SELECT rowid FROM chat_text_grams WHERE chat_text_grams MATCH %s)""",
    COUNT: "SELECT count(*) FROM (SELECT rowid FROM chat_text_grams WHERE chat_text_grams MATCH %s LIMIT 100001)",
}
POSTGRESQL = {
    CONVERSATIONS: """
        SELECT conversation_id FROM chat_message WHERE content_folded LIKE %s
        UNION SELECT m.conversation_id FROM chat_message m JOIN inference_generation g ON g.id = m.generation_id
            WHERE g.text_folded LIKE %s
        UNION SELECT id FROM chat_conversation WHERE title_folded LIKE %s""",
    MESSAGES: """
        SELECT id FROM chat_message WHERE content_folded LIKE %s
        UNION SELECT m.id FROM chat_message m JOIN inference_generation g ON g.id = m.generation_id
            WHERE g.text_folded LIKE %s
        UNION SELECT m.id FROM chat_message m JOIN inference_generation g ON g.id = m.generation_id
            WHERE upper(g.error_message) LIKE upper(%s)""",
    TITLED: "SELECT id FROM chat_conversation WHERE title_folded LIKE %s",
    COUNT: """
        SELECT count(*) FROM (
            (SELECT 1 FROM chat_message WHERE content_folded LIKE %s LIMIT 20001)
            UNION ALL (SELECT 1 FROM inference_generation WHERE text_folded LIKE %s LIMIT 20001)
            UNION ALL (SELECT 1 FROM inference_generation WHERE upper(error_message) LIKE upper(%s) LIMIT 20001)
            UNION ALL (SELECT 1 FROM chat_conversation WHERE title_folded LIKE %s LIMIT 20001)) AS hits""",
}
STATEMENTS = {"sqlite": SQLITE, "postgresql": POSTGRESQL}
COMPLETE = {
    "sqlite": "SELECT NOT EXISTS (SELECT 1 FROM chat_text_pending)",
    "postgresql": (
        "SELECT count(*) = 4 FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid "
        "WHERE relname LIKE 'chat\\_text\\_grams\\_%' AND indisvalid AND pg_table_is_visible(pg_class.oid)"
    ),
}


@dataclass(frozen=True)
class TextCandidates:
    """``conversations``: ids of those with the text in a title, a message or an answer. ``messages``: ids of those
    that have it themselves, or an error with it; ``titled``: ids of the conversations that have it in their title."""

    conversations: RawSQL
    messages: RawSQL
    titled: RawSQL


def candidates(needle: str) -> TextCandidates | None:
    """Return subqueries for a folded text; None where the texts themselves are to be read."""
    if len(needle) < GRAM_CHARS:
        return None
    vendor = connection.vendor
    pattern = _all_grams(needle) if vendor == "sqlite" else f"%{connection.ops.prep_for_like_query(needle)}%"
    count = STATEMENTS[vendor][COUNT]
    with connection.cursor() as cursor:
        cursor.execute(COMPLETE[vendor])
        [is_complete] = cursor.fetchone()
        if not is_complete:
            return None
        cursor.execute(count, [pattern] * count.count("%s"))
        [n_rows] = cursor.fetchone()
    if n_rows > MOST_CANDIDATES[vendor]:
        return None
    statements = [STATEMENTS[vendor][kind] for kind in (CONVERSATIONS, MESSAGES, TITLED)]
    # Statements from above, which have no part of the text.
    return TextCandidates(
        *(RawSQL(sql, [pattern] * sql.count("%s")) for sql in statements)  # noqa: S611  # nosec B611
    )


def _all_grams(needle: str) -> str:
    """Return a query of FTS5 for the rows that have some of the trigrams, spread over the whole text."""
    n_starts = len(needle) - GRAM_CHARS + 1
    n_grams = min(n_starts, MOST_GRAMS)
    starts = {index * (n_starts - 1) // max(1, n_grams - 1) for index in range(n_grams)}
    grams = dict.fromkeys(needle[start : start + GRAM_CHARS].replace('"', '""') for start in sorted(starts))
    return " AND ".join(f'"{gram}"' for gram in grams)

"""The parts of a message longer than the context that the question in it needs, word for word.

Notes on all parts cost as many generations as there are parts; for a question about a detail the detail is better.
"""

import re
from datetime import datetime

from chat.models import Role
from chat.prompting.message_groups import DialogueMessage
from chat.prompting.text_splitter import CountTokens
from chat.recall.passages import said_passages
from chat.recall.search import search
from chat.recall.statements import QUESTION_MARKS, sentences

# Where a question stands: at the beginning or the end of its message.
EDGE_CHARS = 600
# Tasks on all of a text have no parts that matter more.
ABOUT_ALL = re.compile(
    r"\b(?:summar\w+|sum up|translat\w+|rewrit\w+|proofread\w*|overview|(?:main|key) points|tl;?dr|all of|every|whole"
    r"|zusammenfass\w*|fass\w* .* zusammen|übersetz\w*|überblick|hauptpunkt\w*|alle[ns]?|jede[nrs]?|ganze[nrs]?"
    r"|resum\w+|tradu\w+|reescrib\w+|puntos principales|tod[oa]s?|cada)\b",
    re.IGNORECASE,
)
# Of the weight of the question's words: the best part has as much, or the parts are no evidence.
MIN_SHARE = 0.4


def excerpts(text: str, *, limit: int, count: CountTokens, now: datetime) -> str:
    """Return the parts in their order, of at most ``limit`` tokens; empty for a message without a question about a
    detail, or without parts that have its words."""
    question = question_in(text)
    if not question or ABOUT_ALL.search(question):
        return ""
    passages = [
        passage
        for passage in said_passages([DialogueMessage(Role.USER, text)], None, 0)
        if question not in passage.text
    ]
    recalled = search(question, passages, now=now).passages
    if not recalled or max(passage.words or 0.0 for passage in recalled) < MIN_SHARE:
        return ""
    chosen: list[str] = []
    for passage in recalled:
        n_tokens = count(passage.text) + 2
        if n_tokens <= limit:
            chosen.append(passage.text)
            limit -= n_tokens
    return "\n\n".join(sorted(chosen, key=text.index))


def question_in(text: str) -> str:
    """Return the question at the end of a long message, else the one at its beginning; empty without."""
    at_end = list(sentences(text[-EDGE_CHARS:]))[-1:]
    questions = (sentence for sentence in (*at_end, *sentences(text[:EDGE_CHARS])) if sentence.endswith(QUESTION_MARKS))
    return next(questions, "")

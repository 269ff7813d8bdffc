"""Kind: work on a message before the model reads it, which must grow with the length of the text and no faster."""

from collections.abc import Callable

import pytest
from django.utils import timezone

from chat.models import Role
from chat.prompting.message_groups import DialogueMessage
from chat.prompting.source_block import quotation, quoted
from chat.prompting.text_splitter import beginning, pieces
from chat.rag.search.query_understanding import understand_query
from chat.rag.search.terms import content_words, names_in
from chat.rag.sources import DOCUMENT, Source
from chat.services.history_matching import cumulative_digests
from chat.services.questions.query_rewriting import earlier_questions, rewrite_query
from chat.services.turn_context import title_of
from inference.engine.text.citation_filter import citation_labels
from tests.growth import grows_linearly

UNITS = {
    "digits in a bracket": lambda n: "[" + "1" * n,
    "labels without an end": lambda n: "[1 " * n,
    "dots before names": lambda n: "." * n + " Ab" * (n // 6),
    "underscores and brackets": lambda n: ("_" * 50 + "(" + "[x" * 25) * (n // 100 + 1),
    "attributes": lambda n: "a.b[c]" * n,
    "letters before brackets": lambda n: ("a" * 99 + "[x") * (n // 100 + 1),
    "quotes": lambda n: '"' * n,
    "blank lines": lambda n: "x" + "\n " * n + "y",
    "blanks": lambda n: "x" + " " * n + "y",
    "speakers": lambda n: "User: \n" * n,
    "sentences without words": lambda n: "!?" * n,
    "accents": lambda n: "a" + "\u0301\u0323" * n,
    "months": lambda n: "1 may " * n,
    "numbers": lambda n: "20" * n,
}
WORK: dict[str, Callable[[str], object]] = {
    "quotation": lambda text: quotation(Source(kind=DOCUMENT, text=text)),
    "quoted": quoted,
    "names": names_in,
    "words": content_words,
    "understanding": lambda text: understand_query(text, today=timezone.localdate(), speakers=["ab"], emotions=["sad"]),
    "citations": citation_labels,
    "digests": lambda text: cumulative_digests("", text, [(Role.USER, text), (Role.ASSISTANT, text)]),
    "title": lambda text: title_of([DialogueMessage(Role.USER, text)]),
    "rewriting": lambda text: rewrite_query(text, earlier_questions(_dialogue(text))),
    "pieces": lambda text: pieces(text, 1000, len),
    "beginning": lambda text: beginning(text, 1000, len),
}


def _dialogue(text: str) -> list[DialogueMessage]:
    return [DialogueMessage(Role.USER, text), DialogueMessage(Role.ASSISTANT, text), DialogueMessage(Role.USER, text)]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("work", WORK)
def test_the_time_grows_with_the_length(work: str, unit: str) -> None:
    assert grows_linearly(WORK[work], UNITS[unit])

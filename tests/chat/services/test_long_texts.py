"""Kind: work before a refusal, or for a client that has left, that the size of the input does not bound.

Counted in characters that the tokenizer gets, which no machine's speed changes.
"""

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chat.enums import Strategy
from chat.errors import ContextOverflow
from chat.models import Conversation, Message
from chat.rag.sources import ContextItem
from chat.schemas.requests import ChatRequest, CompletionRequest
from chat.services import turns
from chat.streaming.events import start
from inference.config.tokenizer import Tokenizer
from inference.engine.backends.fake import FakeVocabulary
from inference.engine.config import BackendKind, EngineConfig
from inference.models import Generation
from inference.runtime import abort
from inference.runtime.threads import N_LONG_THREADS, N_THREADS
from tests.chat.conversing import ANN, chat, finish, messages, more

pytestmark = pytest.mark.django_db(transaction=True)

CONTEXT = 40_000
N_CHARS = 1_000_000
SCAFFOLDING_CHARS = 12_000  # the system prompt, up to four times


class CountingVocabulary(FakeVocabulary):
    """Counts the characters it encodes; pieces are as long as the real one's."""

    def __init__(self) -> None:
        super().__init__()
        self.n_chars = 0
        self._plain = FakeVocabulary()
        self.on_piece: Callable[[], None] = lambda: None

    def encode(
        self,
        text: str,
        *,
        special: bool,
        limit: int | None = None,
        between_pieces: Callable[[], None] | None = None,
    ) -> list[int]:
        ids: list[int] = []
        for at in range(0, len(text), 1000):
            self.n_chars += len(text[at : at + 1000])
            ids += self._plain.encode(text[at : at + 1000], special=special)
            if limit is not None and len(ids) > limit:
                break
            self.on_piece()
            if between_pieces is not None:
                between_pieces()
        return ids


@pytest.fixture
def vocabulary(use_tokenizer: Callable[[Tokenizer], None]) -> CountingVocabulary:
    vocabulary = CountingVocabulary()
    config = EngineConfig(model_path=Path("none.gguf"), backend=BackendKind.FAKE, context_size=CONTEXT)
    use_tokenizer(Tokenizer(vocabulary, config))
    return vocabulary


TEXTS = {
    "csv": "1,2,ok\n" * (N_CHARS // 7),
    "tags": "<b>" * (N_CHARS // 3),
    "blanks": "x" + " " * N_CHARS + "y",
    "digits": "7" * N_CHARS,
    "accents": "e\u0301" * (N_CHARS // 2),
    "emoji": "😀" * (N_CHARS // 4),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("strategy", [None, Strategy.TRUNCATE, Strategy.ERROR])
def test_a_question_that_cannot_fit_is_refused_once_the_limit_is_passed(
    vocabulary: CountingVocabulary, text: str, strategy: Strategy | None
) -> None:
    vocabulary.longest_token_bytes = 100  # so that the bound alone refuses none of them
    with pytest.raises(ContextOverflow, match="at least") as refused:
        chat(f"u:{TEXTS[text]}", strategy=strategy)
    assert CONTEXT <= refused.value.extra["prompt_tokens"] <= CONTEXT + 10_000
    assert vocabulary.n_chars <= CONTEXT + 10_000
    assert not Conversation.objects.exists()


def test_a_text_beyond_the_lower_bound_is_not_encoded_at_all(vocabulary: CountingVocabulary) -> None:
    with pytest.raises(ContextOverflow, match="at least") as refused:
        chat("u:" + "x" * N_CHARS)
    assert refused.value.extra["prompt_tokens"] == -(-N_CHARS // len("<start_of_turn>"))
    assert vocabulary.n_chars < 1000


@pytest.mark.parametrize("text", TEXTS)
def test_a_raw_prompt_is_refused_alike_and_by_its_own_name(vocabulary: CountingVocabulary, text: str) -> None:
    vocabulary.longest_token_bytes = 100
    with pytest.raises(ContextOverflow, match="at least") as refused:
        turns.start_completion(caller=ANN, request=CompletionRequest(prompt=TEXTS[text]))
    assert refused.value.field == "prompt"
    assert vocabulary.n_chars <= CONTEXT + 10_000


def test_a_long_history_before_such_a_question_is_not_encoded(vocabulary: CountingVocabulary) -> None:
    history = [f"{role}:{TEXTS['csv'][:300_000]}" for role in "uaua"]
    with pytest.raises(ContextOverflow):
        chat(*history, "u:" + "x" * N_CHARS)
    assert vocabulary.n_chars <= CONTEXT + 10_000


HISTORIES: dict[str, Callable[[str], list[str]]] = {
    "first question": lambda text: [f"u:{text}", "a:fine"],
    "first answer": lambda text: ["u:one", f"a:{text}"],
    "greeting": lambda text: [f"a:{text}", "u:one", "a:fine"],
    "in the middle": lambda text: ["u:one", "a:fine", f"u:{text}", "a:fine", "u:two", "a:fine"],
    "many": lambda text: [f"{role}:{text[at : at + 10_000]}" for at in range(0, len(text), 10_000) for role in "ua"],
    "questions in a row": lambda text: [f"u:{text[: len(text) // 2]}", f"u:{text[len(text) // 2 :]}", "a:fine"],
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("place", HISTORIES)
def test_of_a_history_only_what_a_prompt_can_hold_is_encoded(
    vocabulary: CountingVocabulary, text: str, place: str
) -> None:
    turn = chat(*HISTORIES[place](TEXTS[text]), "u:and now?")
    assert vocabulary.n_chars <= 2 * CONTEXT + SCAFFOLDING_CHARS
    stored = sum(len(row.rendered) for row in Message.objects.all())
    assert stored <= 4 * (2 * CONTEXT + SCAFFOLDING_CHARS), "the tokens of a beginning are no rendering"
    finish(turn)
    before = vocabulary.n_chars
    assert more(turn, "And then?").conversation_id == turn.conversation_id
    assert vocabulary.n_chars - before < CONTEXT + SCAFFOLDING_CHARS


@pytest.mark.parametrize("place", HISTORIES)
def test_a_history_that_must_fit_is_refused_once_the_limit_is_passed(
    vocabulary: CountingVocabulary, place: str
) -> None:
    with pytest.raises(ContextOverflow, match="at least"):
        chat(*HISTORIES[place](TEXTS["csv"]), "u:and now?", strategy=Strategy.ERROR)
    assert vocabulary.n_chars <= 2 * CONTEXT + SCAFFOLDING_CHARS


@pytest.mark.parametrize(
    ("sent", "fields"),
    [(["s:{}", "u:Hello"], {}), (["u:Hello"], {"prefill": "{}"}), (["s:{}", "u:one", "a:fine", "u:two"], {})],
)
@pytest.mark.parametrize("text", ["csv", "accents"])
def test_a_system_text_or_a_begun_answer_is_encoded_as_far(
    vocabulary: CountingVocabulary, sent: list[str], fields: dict[str, str], text: str
) -> None:
    parts: dict[str, Any] = {name: value.format(TEXTS[text]) for name, value in fields.items()}
    with pytest.raises(ContextOverflow, match="at least"):
        chat(*(part.format(TEXTS[text]) for part in sent), store=not parts, **parts)
    assert vocabulary.n_chars <= 2 * CONTEXT + SCAFFOLDING_CHARS
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("n_documents", [1, 5, 200])
@pytest.mark.parametrize("text", TEXTS)
def test_documents_are_encoded_in_time_linear_in_their_length(
    vocabulary: CountingVocabulary, text: str, n_documents: int
) -> None:
    size = len(TEXTS[text]) // n_documents
    items = [ContextItem(text=TEXTS[text][n * size : (n + 1) * size]) for n in range(n_documents)]
    chat("u:What do they say?", context=tuple(items))
    assert vocabulary.n_chars <= 2 * len(TEXTS[text]) + SCAFFOLDING_CHARS


@pytest.mark.parametrize("n_chars", [1_500, 15_000, 30_000])
@pytest.mark.parametrize("use_rag", [False, True])
def test_a_question_that_fits_is_encoded_once(vocabulary: CountingVocabulary, n_chars: int, use_rag: bool) -> None:
    turn = chat("u:" + "w " * (n_chars // 2), use_rag=use_rag)
    assert vocabulary.n_chars <= n_chars + SCAFFOLDING_CHARS
    assert Generation.objects.filter(pk=turn.generation_id).exists()


def test_earlier_turns_are_not_encoded_again(vocabulary: CountingVocabulary) -> None:
    turn = chat("u:" + "w " * 8_000)
    finish(turn)
    before = vocabulary.n_chars
    more(turn, "And now?")
    assert vocabulary.n_chars - before < 8_000


def test_a_short_question_is_counted_exactly(vocabulary: CountingVocabulary) -> None:
    with pytest.raises(ContextOverflow) as refused:
        chat("u:" + "\U0001f600" * 15_000)
    assert "at least" not in refused.value.message
    assert refused.value.extra["prompt_tokens"] > 60_000


class TestAClientThatLeft:
    def test_nothing_goes_on_after_the_next_piece_and_nothing_is_stored(self, vocabulary: CountingVocabulary) -> None:
        context = copy_context()
        flag = context.run(abort.new_flag)
        vocabulary.on_piece = lambda: flag.set() if vocabulary.n_chars > 10_000 else None
        with pytest.raises(abort.WorkAborted):
            context.run(chat, "u:" + "w " * 15_000)
        assert vocabulary.n_chars < 14_000
        assert not Message.objects.exists()

    @pytest.mark.parametrize("stops", [True, False])
    async def test_only_a_turn_that_stops_without_a_reader_is_aborted(
        self, vocabulary: CountingVocabulary, stops: bool
    ) -> None:
        reached, may_go_on = threading.Event(), threading.Event()

        def on_piece() -> None:
            reached.set()
            assert may_go_on.wait(10)

        vocabulary.on_piece = on_piece
        request = ChatRequest(messages=messages("u:" + "w " * 15_000))
        begin = partial(turns.start_turn, caller=ANN, request=request)
        task = asyncio.create_task(start(begin, caller=ANN, stops=stops, is_long=True))
        await asyncio.to_thread(reached.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        n_before = vocabulary.n_chars
        may_go_on.set()
        others = [other for other in asyncio.all_tasks() if other is not asyncio.current_task()]
        await asyncio.wait(others, timeout=10)
        assert (vocabulary.n_chars - n_before < 2_000) is stops
        assert await Message.objects.aexists() is not stops


def test_long_texts_take_at_most_half_of_the_threads() -> None:
    assert 1 <= N_LONG_THREADS <= N_THREADS // 2

"""The promise of a kept conversation: each prompt begins with the last prompt and the tokens of its answer.

Through the services and the database, for every format, however an answer ended.
"""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from chat.models import Message, Role
from chat.rag.sources import ContextItem
from chat.services.conversations import update_conversation
from chat.services.turns import Turn
from inference.config import tokenizer
from inference.config.tokenizer import Tokenizer
from inference.engine.backends.fake import END_OF_TURN
from inference.models import Generation, Status
from inference.queue.results import FinalText, output_ids
from inference.token_stream.entries import TokenEntry
from tests.chat.conversing import ANN, chat, finish, more, prompt_of
from tests.chat.vocabularies import CHATML_TEMPLATE, GEMMA_TEMPLATE, REFUSING_TEMPLATE, fake_tokenizer, shown
from tests.inference.making import PARAMS

TOKENIZERS = {
    "gemma": fake_tokenizer(),
    "transcript": fake_tokenizer(is_base=True),
    "template": fake_tokenizer(template=GEMMA_TEMPLATE),
    "chatml": fake_tokenizer(template=CHATML_TEMPLATE),
    "refusing": fake_tokenizer(template=REFUSING_TEMPLATE),
}
every_format = pytest.mark.parametrize("name", TOKENIZERS)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
as_transcript = texts.filter(str.strip)


@pytest.fixture(autouse=True)
def _this_format(request: pytest.FixtureRequest, use_tokenizer: Callable[[Tokenizer], None]) -> None:
    if "name" in request.fixturenames:
        use_tokenizer(TOKENIZERS[request.getfixturevalue("name")])


def next_prompt_begins_with(turn: Turn, so_far: list[int], text: str = "and then?") -> Turn:
    following = more(turn, text)
    assert prompt_of(following)[: len(so_far)] == so_far
    assert len(prompt_of(following)) > len(so_far)
    return following


@pytest.mark.django_db
@every_format
def test_three_turns(name: str) -> None:
    turn = chat("u:one")
    so_far = prompt_of(turn)
    for text in ("first", "second <eos>", " third\n"):
        so_far += finish(turn, text)
        turn = next_prompt_begins_with(turn, so_far)
        so_far = prompt_of(turn)


@pytest.mark.django_db
@every_format
def test_after_a_stop_string_that_cut_a_token(name: str) -> None:
    """The kept tokens are those of the text that the client saw, re-tokenised where the cut was."""
    turn = chat("u:one", stop=("END",))
    vocabulary = TOKENIZERS[name].vocabulary
    tokens = [
        TokenEntry(index=index, token=token, text=text)
        for index, (token, text) in enumerate(
            zip(vocabulary.encode("seen END", special=False), "seen ", strict=False), 1
        )
    ]
    ids = output_ids(vocabulary, tokens, FinalText("", 3), PARAMS)
    assert vocabulary.text(ids) == "seen "
    so_far = prompt_of(turn) + finish(turn, "seen ", output=ids)
    next_prompt_begins_with(turn, so_far)


@pytest.mark.django_db
@every_format
@pytest.mark.parametrize(
    ("status", "finish_reason"), [(Status.INTERRUPTED, "cancelled"), (Status.COMPLETE, "length"), (Status.FAILED, "")]
)
def test_after_an_answer_that_was_cut_off(name: str, status: Status, finish_reason: str) -> None:
    turn = chat("u:one")
    so_far = prompt_of(turn) + finish(turn, "It was a dark and", status=status, finish_reason=finish_reason)
    next_prompt_begins_with(turn, so_far)


@pytest.mark.django_db
@every_format
def test_with_documents_of_former_turns(name: str) -> None:
    """Sources quoted before a message are kept in the prompt, though the next request does not send them again."""
    turn = chat("u:one", context=(ContextItem("the first document"),))
    so_far = prompt_of(turn) + finish(turn, "first [1]")
    following = more(turn, "two", context=(ContextItem("the second document"),))
    assert prompt_of(following)[: len(so_far)] == so_far
    so_far = prompt_of(following) + finish(following, "second")
    last = next_prompt_begins_with(following, so_far)
    assert [shown(prompt_of(last)).count(f"> the {which} document") for which in ("first", "second")] == [1, 1]


@pytest.mark.django_db
@every_format
def test_a_history_that_was_sent(name: str) -> None:
    turn = chat("u:one", "a:first", "u:two", "a:second", "u:three")
    so_far = prompt_of(turn) + finish(turn, "third")
    following = chat("u:one", "a:first", "u:two", "a:second", "u:three", "a:third", "u:four")
    assert following.conversation_id == turn.conversation_id
    assert prompt_of(following)[: len(so_far)] == so_far


@pytest.mark.django_db
@every_format
def test_rendering_again_gives_the_same_tokens(name: str) -> None:
    """Without the stored rendering, texts, sources and answers' own tokens still give the same prompt."""
    turn = chat("u:one", context=(ContextItem("the document"),))
    odd = [*TOKENIZERS[name].encode("fir"), *TOKENIZERS[name].encode("st")]
    so_far = prompt_of(turn) + finish(turn, "first", output=odd)
    Message.objects.filter(role=Role.USER).update(rendered=b"", rendered_with="")
    next_prompt_begins_with(turn, so_far)


@pytest.mark.django_db
def test_another_model_reads_the_texts_not_the_old_tokens(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    turn = chat("u:one")
    finish(turn, "first", output=[END_OF_TURN] * 3)
    use_tokenizer(TOKENIZERS["transcript"])
    second = more(turn, "two")
    assert "\nAssistant: first\n\nUser: two\nAssistant:" in shown(prompt_of(second))
    so_far = prompt_of(second) + finish(second, "second")
    next_prompt_begins_with(second, so_far)


@pytest.mark.django_db
def test_another_system_prompt_counts_from_the_next_turn_on() -> None:
    turn = chat("u:one")
    finish(turn, "first")
    assert turn.conversation_id
    update_conversation(caller=ANN, conversation_id=turn.conversation_id, system_prompt="Be a pirate.")
    second = more(turn, "two")
    assert shown(prompt_of(second)).startswith("⟨bos⟩⟨start_of_turn⟩user\nBe a pirate.\n\none")
    so_far = prompt_of(second) + finish(second, "second")
    next_prompt_begins_with(second, so_far)


@pytest.mark.django_db
def test_an_answer_without_text_is_no_turn_for_the_model() -> None:
    turn = chat("u:one")
    finish(turn, "", output=[], status=Status.INTERRUPTED, finish_reason="cancelled")
    second = more(turn, "two")
    text = shown(prompt_of(second))
    assert "one\n\ntwo⟨end_of_turn⟩" in text
    assert text.count("⟨start_of_turn⟩model") == 1
    so_far = prompt_of(second) + finish(second, "second")
    next_prompt_begins_with(second, so_far)


@pytest.mark.django_db
@every_format
def test_after_an_answer_of_white_space(name: str) -> None:
    """Nothing to see, but tokens in the model's memory: without them it would read the conversation again."""
    turn = chat("u:one")
    so_far = prompt_of(turn) + finish(turn, "", output=TOKENIZERS[name].encode("\n \n"), finish_reason="length")
    second = next_prompt_begins_with(turn, so_far)
    so_far = prompt_of(second) + finish(second, "second")
    next_prompt_begins_with(second, so_far)


@pytest.mark.django_db
def test_another_model_does_not_get_the_tokens_of_white_space(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    turn = chat("u:one")
    finish(turn, "", output=[END_OF_TURN] * 3, finish_reason="length")
    use_tokenizer(TOKENIZERS["transcript"])
    for text in ("two", "three"):
        turn = more(turn, text)
        assert "User: one\nAssistant:\n\nUser: two\nAssistant:" in shown(prompt_of(turn))
        so_far = prompt_of(turn) + finish(turn, "said")
    next_prompt_begins_with(turn, so_far)


@pytest.mark.django_db
def test_a_shortened_history_is_repeated_too(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=1000))
    turn = chat("u:" + "q" * 80, max_tokens=20)
    for number in range(8):
        finish(turn, f"answer {number} " + "a" * 60)
        turn = more(turn, f"question {number} " + "q" * 60, max_tokens=20)
    assert Generation.objects.get(pk=turn.generation_id).details["history"]["messages_left_out"] > 0
    so_far = prompt_of(turn) + finish(turn, "short")
    following = more(turn, "next", max_tokens=20)
    assert prompt_of(following)[: len(so_far)] == so_far
    assert Generation.objects.get(pk=following.generation_id).details["history"]["messages_left_out"] > 0


class RandomConversations(TestCase):
    """Hypothesis with a clean database for every example."""

    @given(
        name=st.sampled_from(list(TOKENIZERS)),
        turns=st.lists(st.tuples(as_transcript, as_transcript, st.one_of(st.none(), texts)), min_size=2, max_size=4),
    )
    @settings(max_examples=40, deadline=None)
    def test_any_conversation(self, name: str, turns: list[tuple[str, str, str | None]]) -> None:
        before = tokenizer._tokenizer
        tokenizer._tokenizer = TOKENIZERS[name]
        try:
            self.converse(turns)
        finally:
            tokenizer._tokenizer = before

    def converse(self, turns: list[tuple[str, str, str | None]]) -> None:
        so_far: list[int] = []
        turn: Turn | None = None
        for user, answer, document in turns:
            context = (ContextItem(document),) if document else ()
            turn = more(turn, user, context=context) if turn else chat(f"u:{user}", context=context)
            prompt = prompt_of(turn)
            assert prompt[: len(so_far)] == so_far
            so_far = prompt + finish(turn, answer)

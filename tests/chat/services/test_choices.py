"""Raw prompts as tokens, several answers to one prompt, and answers that continue a beginning."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from pytest_django import Settings

from chat.enums import ChatRole
from chat.errors import ContextOverflow, InvalidRequest, TooManyRequests
from chat.models import Conversation, Message
from chat.schemas.requests import ChatMessage, ChatRequest, CompletionRequest
from chat.services import turns as services
from inference.config.tokenizer import Tokenizer
from inference.models import Generation
from tests.chat.conversing import ANN, generation_of
from tests.chat.vocabularies import fake_tokenizer, shown

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        (CompletionRequest(prompt="<bos>Once"), "⟨bos⟩Once"),
        (CompletionRequest(prompt="<bos><bos>Once"), "⟨bos⟩⟨bos⟩Once"),
        (CompletionRequest(prompt="Once<bos>"), "⟨bos⟩Once⟨bos⟩"),
        (CompletionRequest(prompt="<bos>Once", special=False), "⟨bos⟩<bos>Once"),
        (CompletionRequest(prompt=(ord("O") + 5,)), "O"),
    ],
)
def test_a_raw_prompt_begins_once(body: CompletionRequest, prompt: str) -> None:
    generation = generation_of(services.start_completion(caller=ANN, request=body))
    assert shown(generation.prompt_ids) == prompt


@pytest.mark.parametrize("token", [-1, 261, 2**31])
def test_a_prompt_of_unknown_tokens(token: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        services.start_completion(caller=ANN, request=CompletionRequest(prompt=(5, token)))
    assert caught.value.field == "prompt"
    assert not Generation.objects.exists()


def test_several_prompts_with_several_answers() -> None:
    request = CompletionRequest(prompt="one", further_prompts=("two",), n=2, seed=2**32 - 1)
    turn = services.start_completion(caller=ANN, request=request)
    made = [Generation.objects.get(pk=choice.generation_id) for choice in (turn, *turn.alternatives)]
    assert [shown(row.prompt_ids) for row in made] == ["⟨bos⟩one"] * 2 + ["⟨bos⟩two"] * 2
    assert [row.params["sampling"]["seed"] for row in made] == [2**32 - 1, 0] * 2


def test_of_several_prompts_one_does_not_fit(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=100))
    with pytest.raises(ContextOverflow) as caught:
        services.start_completion(
            caller=ANN, request=CompletionRequest(prompt="one", further_prompts=("x" * 100,), max_tokens=5)
        )
    assert caught.value.field == "prompt"
    assert not Generation.objects.exists()


def test_choices_are_stored_together_or_not_at_all(settings: Settings) -> None:
    settings.QUEUE_MAX_PER_CALLER = 2
    request = ChatRequest(messages=(ChatMessage(ChatRole.USER, "hello"),), n=3)
    with pytest.raises(TooManyRequests):
        services.start_turn(caller=ANN, request=request)
    assert not Generation.objects.exists()
    assert not Conversation.objects.exists()
    turn = services.start_turn(caller=ANN, request=replace(request, n=2))
    rows = [Generation.objects.get(pk=choice.generation_id) for choice in (turn, *turn.alternatives)]
    assert [row.ephemeral for row in rows] == [False, True]
    assert rows[0].prompt == rows[1].prompt
    assert Message.objects.count() == 2


def test_a_prefill_is_the_end_of_the_prompt() -> None:
    messages = (ChatMessage(ChatRole.USER, "hello"),)
    turns = [
        services.start_turn(caller=ANN, request=ChatRequest(messages=messages, prefill=text, store=False))
        for text in ("", " Well <eos>,")
    ]
    plain, continued = (shown(generation_of(turn).prompt_ids) for turn in turns)
    assert continued == plain + "Well <eos>,"

"""The official ``openai`` package against running services: scripted answers for all calls, the real model for some."""

from collections.abc import Callable, Iterator

import pytest
from openai import NotFoundError, OpenAI

from tests.clients import openai_calls
from tests.clients.service import client_service
from tests.live_stack import LiveStack


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    with client_service() as url, OpenAI(base_url=f"{url}/v1", api_key="sk-none", timeout=60) as client:
        yield client


@pytest.mark.parametrize("call", openai_calls.CALLS, ids=lambda call: call.__name__)
def test_call(call: Callable[[OpenAI], None], client: OpenAI) -> None:
    call(client)


@pytest.mark.slow
def test_the_real_model(live_stack: Callable[..., LiveStack]) -> None:
    stack = live_stack(backend="llama", GEMMA_CONTEXT_SIZE="2048")
    with OpenAI(base_url=f"{stack.url}/v1", api_key="sk-none", timeout=120) as client:
        [model] = client.models.list()
        greedy = client.completions.create(model=model.id, prompt="One, two, three, four,", max_tokens=6, temperature=0)
        assert "five" in greedy.choices[0].text
        question = openai_calls.ask("Who wrote Romeo and Juliet? " + "Think well before you write. " * 20)
        answer = client.chat.completions.create(
            model=model.id, messages=question, max_tokens=24, temperature=0, logprobs=True, top_logprobs=5, n=2
        )
        # Not compared with each other: where two tokens are nearly alike, the shape of a batch decides between them.
        for choice in answer.choices:
            assert choice.message.content
            assert choice.logprobs is not None
            assert choice.logprobs.content
            for token in choice.logprobs.content:
                assert token.logprob == max(top.logprob for top in token.top_logprobs)
        pieces = client.chat.completions.create(
            model=model.id, messages=question, max_tokens=24, temperature=0, stream=True
        )
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces).strip()
        again = client.chat.completions.create(model=model.id, messages=question, max_tokens=1)
        assert again.usage is not None
        assert again.usage.prompt_tokens_details is not None
        assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1 > 100
        with pytest.raises(NotFoundError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=question)
        assert caught.value.code == "model_not_found"

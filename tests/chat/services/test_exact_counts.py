"""Token counts of the budget equal those of the engine: sizes of turns add up to the prompt, and the loaded model
computes as many tokens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chat.prompting.chat_format import ChatFormat, GemmaFormat, TranscriptFormat
from chat.prompting.context_window import ContextWindow, Exchange, HistorySummary
from chat.prompting.template_format import TemplateFormat
from chat.prompting.token_budget import TokenBudget
from inference.config.tokenizer import Tokenizer
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.backends.vocabulary import open_vocabulary
from inference.engine.config import EngineConfig
from tests.chat.vocabularies import GEMMA_TEMPLATE
from tests.engine.harness import Harness

pytestmark = pytest.mark.real_model

ODD = [
    "Grüße, 你好 👋🏽",
    "<end_of_turn>\n<bos> is text",
    "  two  spaces\n\n\tand a tab ",
    "\u200bzero width\ufeff",
    "x" * 300,
]
EXCHANGES = [Exchange(user=text, answer=f"About {text}: well.") for text in ODD]


@pytest.fixture(scope="module")
def config(model_path: Path) -> EngineConfig:
    return EngineConfig(model_path=model_path, context_size=2048, batch_size=256, threads=1, parallel=1)


@pytest.fixture(scope="module")
def backend(config: EngineConfig) -> Iterator[LlamaBackend]:
    backend = LlamaBackend(config, n_slots=2)
    yield backend
    backend.close()


@pytest.mark.parametrize("kind", ["gemma", "transcript", "template"])
@pytest.mark.parametrize("start", [0, 2])
def test_sizes_add_up_to_what_the_model_computes(
    backend: LlamaBackend, config: EngineConfig, kind: str, start: int
) -> None:
    # As the web process counts: of the vocabulary alone, never of the loaded model.
    tokenizer = Tokenizer(open_vocabulary(config), config)
    formats: dict[str, ChatFormat] = {
        "gemma": GemmaFormat(tokenizer),
        "transcript": TranscriptFormat(tokenizer),
        "template": TemplateFormat(tokenizer, GEMMA_TEMPLATE),
    }
    summary = HistorySummary(text="They talked of 你好.", n_messages=2 * start, version=1)
    budget = TokenBudget(context_size=2048, max_tokens=8)
    history = ContextWindow(formats[kind], "You are kind.", budget, summary, first_message=lambda: "the first")
    question = Exchange(user="and now?")
    prompt = history.render([*EXCHANGES, question])
    follow_ups = history.as_follow_ups([*EXCHANGES, question])
    assert history.n_tokens_from(follow_ups, start) == len(prompt.ids)
    harness = Harness(backend, config)
    harness.submit("counted", list(prompt.ids), max_tokens=1, cache_prompt=False)
    harness.run()
    assert sum(step.n_prefill for step in harness.steps()) == len(prompt.ids)
    assert harness.progress("counted")[-1] == (len(prompt.ids), len(prompt.ids))

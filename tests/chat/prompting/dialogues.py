"""Dialogues as the service renders them turn by turn, beside the template's own rendering of the whole."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from chat.enums import Effort, Strategy
from chat.prompting.context_window import ContextWindow, Exchange, RenderedTurn
from chat.prompting.jinja_sandbox import Conversation, TemplateRendering, render
from chat.prompting.template_format import TemplateFormat
from chat.prompting.token_budget import TokenBudget
from chat.prompting.tool_instructions import tool_instructions
from chat.tool_calling.call_text import answer_text, is_results, results_text
from chat.tool_calling.tools import Tool
from inference.engine.backends.fake import CONTROL, FIRST_BYTE
from tests.chat.vocabularies import fake_tokenizer

SYSTEM = "Be kind."
N_TURNS = 3
TOOLS = (
    Tool(name="weather", description="Forecast", parameters={"properties": {"city": {"type": "string"}}}),
    Tool(name="clock"),
)


@dataclass(frozen=True)
class Comparison:
    """A prompt of the service and the template's own, of a dialogue with so many turns."""

    n_turns: int
    has_system: bool
    has_thoughts: bool
    prompt: str
    expected: TemplateRendering

    @property
    def is_equal(self) -> bool:
        return not self.expected.refusal and self.prompt == self.expected.text


def spelled(ids: tuple[int, ...]) -> str:
    return b"".join(CONTROL[i].encode() if i < FIRST_BYTE else bytes([i - FIRST_BYTE]) for i in ids).decode()


def compared(template: str, effort: Effort | None = None) -> Iterator[Comparison]:
    """Yield dialogues of one to three turns, with and without system text and thoughts. Raises TemplateUnusable."""
    tokenizer = fake_tokenizer(context_size=1_000_000)
    chat_format = TemplateFormat(tokenizer, template, effort)
    for system in ("", SYSTEM):
        for has_thoughts in (False, True):
            exchanges: list[Exchange] = []
            for number in range(1, N_TURNS + 1):
                prompt = window(chat_format, system).render([*exchanges, Exchange(user=f"question {number}")])
                conversation = conversation_of(prompt.exchanges, system, takes_system=chat_format.takes_system)
                [expected] = render(
                    template,
                    bos=tokenizer.bos_text,
                    eos=tokenizer.eos_text,
                    conversations=[conversation],
                    options=chat_format.options,
                )
                yield Comparison(number, bool(system), has_thoughts, spelled(prompt.ids), expected)
                thought = f"thought {number}" if has_thoughts else ""
                answered = answer(chat_format, prompt.exchanges[-1], thought, f"answer {number}")
                exchanges = [*prompt.exchanges[:-1], answered]


def compared_calls(template: str, effort: Effort | None = None) -> Iterator[Comparison]:
    """Yield dialogues with calls of tools, of a template that writes them in the form that is read here: the question,
    the results of one and of two calls, and the question after the answer to them, with and without thoughts."""
    tokenizer = fake_tokenizer(context_size=1_000_000, template=template)
    chat_format = TemplateFormat(tokenizer, template, effort)
    system = f"{SYSTEM}\n\n{tool_instructions(TOOLS, tokenizer)}"
    for n_calls, has_thoughts in product((1, 2), (False, True)):
        calls = [("weather", json.dumps({"city": f"town {number}"})) for number in range(n_calls)]
        results = [f"rain {number}" for number in range(n_calls)]
        turns = [("question 1", answer_text("", calls)), (results_text(results), "answer"), ("question 2", "")]
        exchanges: list[Exchange] = []
        messages: Conversation = [{"role": "system", "content": SYSTEM}]
        for number, (user, text) in enumerate(turns, start=1):
            prompt = window(chat_format, system).render([*exchanges, Exchange(user=user)])
            if is_results(user):
                messages += [{"role": "tool", "tool_call_id": "1", "content": result} for result in results]
            else:
                messages.append({"role": "user", "content": user})
            options = {**chat_format.options, "tools": [tool.declaration for tool in TOOLS]}
            bos, eos = tokenizer.bos_text, tokenizer.eos_text
            [expected] = render(template, bos=bos, eos=eos, conversations=[messages], options=options)
            yield Comparison(number, True, has_thoughts, spelled(prompt.ids), expected)
            thought = f"thought {number}" if has_thoughts else ""
            exchanges = [*prompt.exchanges[:-1], answer(chat_format, prompt.exchanges[-1], thought, text)]
            messages.append(_assistant(text, calls if number == 1 else [], thought))


def _assistant(text: str, calls: list[tuple[str, str]], thought: str) -> dict[str, Any]:
    made = [
        {"id": "1", "type": "function", "function": {"name": name, "arguments": json.loads(arguments)}}
        for name, arguments in calls
    ]
    return {
        "role": "assistant",
        "content": "" if calls else text,
        **({"tool_calls": made} if calls else {}),
        **({"reasoning_content": thought} if thought else {}),
    }


def window(chat_format: TemplateFormat, system: str) -> ContextWindow:
    budget = TokenBudget(context_size=1_000_000, max_tokens=10, strategy=Strategy.ERROR)
    return ContextWindow(chat_format, system, budget)


def answer(chat_format: TemplateFormat, exchange: Exchange, thought: str, text: str) -> Exchange:
    """An exchange with the answer of a model that writes its marks, and the answer's own tokens."""
    written, marks = text, chat_format.thought
    if thought and marks:
        opening = "" if marks.is_open else marks.opens[0]
        written = f"{opening}{thought}{marks.closes[0]}{(marks.answers or [''])[0]}{text}"
    ids = tuple(chat_format.tokenizer.encode(written))
    rendered = RenderedTurn(ids, chat_format.generated_key)
    return replace(exchange, answer=text, thought=thought, answer_rendered=rendered)


def conversation_of(exchanges: tuple[Exchange, ...], system: str, *, takes_system: bool) -> Conversation:
    messages: Conversation = [{"role": "system", "content": system}] if system and takes_system else []
    head = f"{system}\n\n" if system and not takes_system else ""
    for exchange in exchanges:
        messages.append({"role": "user", "content": head + exchange.user})
        head = ""
        if exchange.answer:
            thought = {"reasoning_content": exchange.thought} if exchange.thought else {}
            messages.append({"role": "assistant", "content": exchange.answer} | thought)
    return messages

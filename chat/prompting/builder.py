"""One prompt of one dialogue with the sources that may be shown: how many of them fit, and what it all becomes."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from chat.enums import Strategy
from chat.errors import ContextOverflow
from chat.prompting.chat_templates import ChatFormat, get_format
from chat.prompting.context_window import ContextWindow, HistorySummary, RenderedPrompt
from chat.prompting.message_groups import DialogueMessage, MessageGroup, group_messages, with_sources
from chat.prompting.system_prompt import choose_sources, system_prompt
from chat.prompting.text_splitter import beginning
from chat.prompting.token_budget import TokenBudget
from chat.rag.sources import Source
from chat.schemas.requests import ChatRequest, RunOptions
from inference.engine.params import SamplingParams, SequenceParams

# The part of the context that quoted memories and documents may take.
SOURCES_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class BuiltPrompt:
    """A prompt with what it was made of. ``answer_key`` is the key of the tokens that will answer it."""

    prompt: RenderedPrompt
    groups: list[MessageGroup]
    sources: tuple[Source, ...]
    answer_key: str
    history_summary: HistorySummary

    @property
    def highest_label(self) -> int | None:
        """What the answer may cite; None where nothing can be cited, and a bracket is only a bracket."""
        return len(self.sources) or None

    @property
    def history_note(self) -> dict[str, Any]:
        """``usage.history``: said only when something is not in the prompt word for word."""
        prompt = self.prompt
        if not (prompt.n_left_out or prompt.n_summarized):
            return {}
        note: dict[str, Any] = {"strategy": Strategy.TRUNCATE.value, "messages_left_out": prompt.n_left_out}
        if prompt.n_summarized:
            note |= {
                "strategy": Strategy.SUMMARIZE.value,
                "messages_summarized": prompt.n_summarized,
                "summary_version": self.history_summary.version,
            }
        if prompt.n_left_out and self.history_summary.trouble:
            note["summary"] = self.history_summary.trouble
        return note


class PromptBuilder:
    """Puts prompts together under one system text and strategy. ``own_system`` empty: the default."""

    def __init__(
        self, *, own_system: str, max_tokens: int, strategy: Strategy, history_summary: HistorySummary | None = None
    ) -> None:
        self.format: ChatFormat = get_format()
        self.budget = TokenBudget(
            context_size=self.format.tokenizer.context_size, max_tokens=max_tokens, strategy=strategy
        )
        self.history_summary = history_summary or HistorySummary()
        self.system = system_prompt(own_system, plain_model=self.format.plain_model)

    def build(self, said: Sequence[DialogueMessage], candidates: Sequence[Source] = ()) -> BuiltPrompt:
        """Raises ContextOverflow only for what the dialogue itself needs: sources that do not fit are not shown."""
        without = self._build(said, ())  # may refuse
        if not candidates:
            return without
        chosen = choose_sources(candidates, budget=self._sources_budget(without), count_tokens=self.count)
        if not chosen:
            return without
        try:
            return self._build(said, chosen)
        except ContextOverflow:
            # Tokens of a text and of its parts differ by a few; at the very edge the sources give way.
            return without

    def _build(self, said: Sequence[DialogueMessage], sources: tuple[Source, ...]) -> BuiltPrompt:
        groups = group_messages(with_sources(said, sources) if sources else said)
        prompt = self.history(groups).prompt([group.as_exchange() for group in groups])
        return BuiltPrompt(
            prompt=prompt,
            groups=groups,
            sources=sources,
            answer_key=self.format.fingerprint,
            history_summary=self.history_summary,
        )

    def history(self, groups: Sequence[MessageGroup]) -> ContextWindow:
        """With as much of the first message as may stay when its turn does not."""

        def first() -> str:
            if len(groups) <= 1 or self.budget.strategy is Strategy.ERROR:
                return ""
            # Not always in the first group: a sent history may begin with a greeting of the assistant's.
            text = next(said.text for group in groups for said in group.users)
            return beginning(text, self.budget.first_message_limit, self.count)

        return ContextWindow(self.format, self.system, self.budget, self.history_summary, first=first)

    def n_tokens_alone(self, text: str) -> int:
        """Tokens of a prompt of nothing but the system text and this message."""
        return len(self.format.opening(self.system, text))

    def count(self, text: str) -> int:
        return len(self.format.tokenizer.encode(text))

    def may_call_for_summary(self, prompt: RenderedPrompt) -> bool:
        """Whether turns will have to be folded after the answer, however long it becomes."""
        if self.budget.strategy is not Strategy.SUMMARIZE:
            return False
        longest = len(prompt.ids) + self.budget.max_tokens
        return prompt.n_left_out > 0 or longest > self.budget.summary_trigger

    def _sources_budget(self, without: BuiltPrompt) -> int:
        """Old turns may be left out for the sake of memories, unless the client wants an error instead."""
        if self.budget.strategy is Strategy.ERROR:
            needed = len(without.prompt.ids)
        else:
            needed = self.history(without.groups).n_tokens_alone(without.groups[-1].as_exchange().user)
        return min(int(self.budget.context_size * SOURCES_SHARE), self.budget.soft_limit - needed)


def sequence_params(
    options: RunOptions,
    chat_format: ChatFormat | None,
    *,
    n_prompt: int,
    context_size: int,
    highest_label: int | None = None,
) -> SequenceParams:
    """What the engine is told; a seed is drawn here if none was given, ``max_tokens`` cut to what is left."""
    sampling = SamplingParams(
        seed=options.seed if options.seed is not None else secrets.randbelow(2**31),
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repeat_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        logit_bias=dict(options.logit_bias),
    )
    # A format's stops are its way of an end token: who ignores the one ignores the other.
    format_stops = chat_format.stops if chat_format and not options.ignore_eos else ()
    return SequenceParams(
        sampling=sampling,
        # A prompt still to be prepared may grow by memories; then the engine's own limit ends the answer.
        max_tokens=max(1, min(options.max_tokens, context_size - n_prompt)),
        stop=[*options.stop, *format_stops],
        ignore_eos=options.ignore_eos,
        cache_prompt=options.cache_prompt,
        trim_start=chat_format.trim_start if chat_format else False,
        highest_label=highest_label,
    )


def timeout_secs(options: RunOptions) -> float:
    return min(options.timeout_s or settings.REQUEST_TIMEOUT_SECS, settings.REQUEST_TIMEOUT_SECS)


def wants_memories(request: ChatRequest) -> bool:
    return settings.RAG_DEFAULT if request.use_rag is None else request.use_rag

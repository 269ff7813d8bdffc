"""Build the prompt of a dialogue: choose the sources and recalled messages that fit the token budget, render, and fit
the context window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chat.enums import Effort, Strategy
from chat.errors import ContextOverflow
from chat.prompting.chat_format import ChatFormat
from chat.prompting.chat_templates import get_format
from chat.prompting.context_window import ContextWindow, Exchange, HistorySummary, RenderedPrompt
from chat.prompting.message_groups import DialogueMessage, MessageGroup, group_messages
from chat.prompting.recalled import Recall, Recaller, RecallForm, choose_recalled
from chat.prompting.system_prompt import choose_sources, system_prompt_of
from chat.prompting.text_splitter import beginning
from chat.prompting.token_budget import EXACT_CHARS, TokenBudget
from chat.prompting.tool_instructions import tool_instructions
from chat.rag.sources import Source
from chat.tool_calling.tools import Tool

# The part of the context window that retrieved passages and documents may take.
SOURCES_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class BuiltPrompt:
    """A prompt with all that is stored about it."""

    ids: tuple[int, ...]
    exchanges: tuple[Exchange, ...]  # with the tokens that they are rendered to in this prompt
    groups: list[MessageGroup]
    sources: tuple[Source, ...]
    answer_key: str  # key under which the tokens of the answer are valid
    highest_label: int | None  # of the citations that the answer may hold; None: brackets are plain text
    history_note: dict[str, Any]  # ``usage.history``
    may_need_summary: bool  # a rolling summary may be due after the answer, depending on its length
    chat_format: ChatFormat
    context_size: int
    n_shared: int  # leading tokens that are the installation's own text


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A prompt before messages are recalled beside its question."""

    groups: list[MessageGroup]
    sources: tuple[Source, ...]
    window: ContextWindow
    prompt: RenderedPrompt


class PromptBuilder:
    """Builds prompts with one system prompt, strategy and history summary. An empty ``system_prompt`` is the
    default; ``prefill`` is the beginning of the answer, ``tools`` are those that the model is shown. ``recaller``
    searches the messages that a prompt does not hold, with the strategy ``summarize`` alone."""

    def __init__(
        self,
        *,
        system_prompt: str,
        max_tokens: int,
        strategy: Strategy,
        summary: HistorySummary | None = None,
        prefill: str = "",
        tools: Sequence[Tool] = (),
        effort: Effort | None = None,
        recaller: Recaller | None = None,
    ) -> None:
        self.format: ChatFormat = get_format(effort).for_request()
        context_size = self.format.tokenizer.context_size
        self.recaller = recaller
        self.budget = TokenBudget(
            context_size=context_size, max_tokens=max_tokens, strategy=strategy, recalls=recaller is not None
        )
        self.summary = summary or HistorySummary()
        # The beginning of an answer stands where a past answer would: behind the place of a thought.
        form = self.format
        self.ending = tuple(form.answer(prefill, limit=self.budget.hard_limit) if prefill else form.generation_ids)
        system = system_prompt_of(system_prompt, plain_model=self.format.plain_model)
        self._own_system = "" if system_prompt.strip() else system
        self.system = "\n\n".join(filter(None, (system, tool_instructions(tools, self.format.tokenizer))))

    def build(
        self, dialogue: Sequence[DialogueMessage], candidates: Sequence[Source] = (), *, is_final: bool = True
    ) -> BuiltPrompt:
        """Show as many ``candidates`` as fit. Raises ContextOverflow only when the dialogue itself does not fit. Of a
        prompt that is not ``is_final`` nothing is searched."""
        question = group_messages(dialogue)[-1].exchange.user
        # First: whatever the history holds, a question that does not fit alone is refused, and so is a begun answer.
        if overflow := self.overflow_alone(question):
            raise overflow
        if len(self.ending) > self.budget.hard_limit:
            raise self.budget.overflow(len(self.ending), is_exact=False)
        plain = self._draft(dialogue, ())
        draft = self._with_sources(dialogue, plain, candidates) if candidates else plain
        return self._built(draft, self.recaller if is_final else None)

    def _with_sources(self, dialogue: Sequence[DialogueMessage], plain: _Draft, candidates: Sequence[Source]) -> _Draft:
        # Old turns may be left out to make room for sources, unless the client wants an error instead.
        if self.budget.strategy is Strategy.ERROR:
            n_needed = len(plain.prompt.ids)
        else:
            n_needed = len(self.format.opening(self.system, plain.groups[-1].exchange.user))
        budget = min(int(self.budget.context_size * SOURCES_SHARE), self.budget.soft_limit - n_needed)
        sources = choose_sources(candidates, budget=budget, count_tokens=self.count)
        if not sources:
            return plain
        try:
            return self._draft(dialogue, sources)
        except ContextOverflow:
            # A text has a few tokens more or less than its parts: at the very edge the sources give way.
            return plain

    def context_window(self, groups: Sequence[MessageGroup]) -> ContextWindow:
        """Return a window that keeps as much of the first message as its limit allows when its turn is left out."""

        def first_message() -> str:
            if len(groups) <= 1 or self.budget.strategy is Strategy.ERROR:
                return ""
            # Not always in the first group: a sent history may begin with a greeting of the assistant.
            text = next(message.text for group in groups for message in group.users)
            return beginning(text, self.budget.first_message_limit, self.count)

        return ContextWindow(
            self.format, self.system, self.budget, self.summary, first_message=first_message, ending=self.ending
        )

    def overflow_alone(self, text: str) -> ContextOverflow | None:
        """Return the refusal of a prompt of the system prompt and this message alone; None if it fits."""
        limit = self.budget.hard_limit
        if max(len(self.system), len(text)) <= EXACT_CHARS:
            n_tokens = len(self.format.opening(self.system, text))
            return self.budget.overflow(n_tokens) if n_tokens > limit else None
        n_tokens = self.format.tokenizer.least_tokens(text)
        if n_tokens <= limit:
            n_tokens = len(self.format.opening(self.system, text, limit=limit))
        return self.budget.overflow(n_tokens, is_exact=False) if n_tokens > limit else None

    def n_shared(self, ids: Sequence[int]) -> int:
        """Count the leading tokens of a prompt that are the installation's own text, which all callers share."""
        return self.format.n_shared(ids, self._own_system) if self._own_system else 0

    def count(self, text: str) -> int:
        return len(self.format.tokenizer.encode(text))

    def _draft(self, dialogue: Sequence[DialogueMessage], sources: tuple[Source, ...]) -> _Draft:
        groups = group_messages(dialogue, sources)
        window = self.context_window(groups)
        prompt = window.render([group.exchange for group in groups])
        if len(prompt.ids) > self.budget.hard_limit:
            raise self.budget.overflow(len(prompt.ids))
        return _Draft(groups=groups, sources=sources, window=window, prompt=prompt)

    def _built(self, draft: _Draft, recaller: Recaller | None) -> BuiltPrompt:
        prompt, note = draft.prompt, self.summary.note_of(draft.prompt)
        if recaller and self.budget.recall_limit and prompt.n_not_shown:
            prompt, recall_note = self._with_recall(draft, recaller(prompt.n_not_shown))
            note |= recall_note
        return BuiltPrompt(
            ids=prompt.ids,
            exchanges=prompt.exchanges,
            groups=draft.groups,
            sources=draft.sources,
            answer_key=self.format.generated_key,
            highest_label=len(draft.sources) or None,
            history_note=note,
            may_need_summary=self.budget.strategy is Strategy.SUMMARIZE
            and (prompt.n_left_out > 0 or len(draft.prompt.ids) + self.budget.max_tokens > self.budget.summary_trigger),
            chat_format=self.format,
            context_size=self.budget.context_size,
            n_shared=self.n_shared(prompt.ids),
        )

    def _with_recall(self, draft: _Draft, recall: Recall) -> tuple[RenderedPrompt, dict[str, Any]]:
        """Return the prompt with what fits of the recalled passages, and their part of ``usage.history``."""
        form = RecallForm(plain_model=self.format.plain_model, has_times=recall.names_times)
        first = draft.window.first_message
        chosen = choose_recalled(
            # The first message stands in the prompt already; before it there may be a greeting of the assistant.
            [passage for passage in recall.passages if passage.position > 1 or passage.text.strip() not in first],
            budget=min(self.budget.recall_limit, self.budget.soft_limit - len(draft.prompt.ids)),
            count=self.count,
            form=form,
        )
        note: dict[str, Any] = {"recall_problem": recall.problem} if recall.problem else {}
        if not chosen:
            return draft.prompt, note
        prompt = draft.window.with_block(draft.prompt, form.block(chosen))
        if len(prompt.ids) > self.budget.hard_limit:
            return draft.prompt, note
        return prompt, {"recalled": [passage.note() for passage in chosen]} | note

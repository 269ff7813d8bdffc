"""Context window: renders a conversation into a prompt that fits, and repeats earlier prompts token for token.

    prompt of turn n  =  opening | answer 1 | follow-up 2 | answer 2 | ... | follow-up n | ending
                         '------ prompt and answer of turn n-1 ------'

The ending is what the format has between a user turn and a new answer, but not before a past one. A dialogue that the
format does not compose of such pieces is rendered whole, again in every turn.

The tokens of each user turn are stored with a key. The key of an opening covers format, context size and head (system
prompt and block about earlier turns), that of a follow-up the format alone. A stored history is reusable when its last
opening has the current key and only follow-ups of this format come after it; turns before that opening were left out
and stay out. A new rolling summary makes a new head: only then does a prompt begin with other tokens. A block of
recalled messages stands before the newest user text in one prompt alone and in no stored rendering: the next prompt
repeats everything before it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from chat.enums import Strategy
from chat.prompting.chat_format import ChatFormat, PastTurn
from chat.prompting.history_notes import earlier_block
from chat.prompting.token_budget import EXACT_CHARS, TokenBudget
from chat.tool_calling.call_text import is_results


@dataclass(frozen=True)
class RenderedTurn:
    """Token ids and the key under which they are valid."""

    ids: tuple[int, ...] = ()
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A user turn, sources included, and its answer; the last exchange of a prompt has no answer yet. ``thought``: of
    the answer."""

    user: str
    answer: str = ""
    thought: str = ""
    user_rendered: RenderedTurn = RenderedTurn()
    answer_rendered: RenderedTurn = RenderedTurn()
    n_messages: int = 2


@dataclass(frozen=True, kw_only=True)
class RenderedPrompt:
    """Token ids, and all exchanges with their current rendering. ``n_summarized`` counts the messages that the
    summary covers, ``n_left_out`` those that neither summary nor prompt hold. It begins with exchange ``start``."""

    ids: tuple[int, ...]
    exchanges: tuple[Exchange, ...]
    start: int = 0
    n_summarized: int = 0
    n_left_out: int = 0

    @property
    def n_not_shown(self) -> int:
        """Count the messages that the prompt does not hold word for word."""
        return self.n_summarized + self.n_left_out


@dataclass(frozen=True, kw_only=True)
class HistorySummary:
    """The rolling summary that replaces the first ``n_messages`` in a prompt; version 0: none. ``problem`` describes
    a newer version that is unfinished or failed."""

    text: str = ""
    n_messages: int = 0
    version: int = 0
    problem: str = ""

    def note_of(self, prompt: RenderedPrompt) -> dict[str, Any]:
        """Describe a prompt with this summary; empty while it holds every message word for word."""
        if not (prompt.n_left_out or prompt.n_summarized):
            return {}
        note: dict[str, Any] = {"strategy": Strategy.TRUNCATE.value, "messages_left_out": prompt.n_left_out}
        if prompt.n_summarized:
            note |= {
                "strategy": Strategy.SUMMARIZE.value,
                "messages_summarized": prompt.n_summarized,
                "summary_version": self.version,
            }
        if prompt.n_left_out and self.problem:
            note["summary"] = self.problem
        return note


@dataclass(frozen=True)
class PromptHead:
    """Text before the first turn, and the key of an opening that begins with it."""

    text: str
    key: str


class ContextWindow:
    """Renders prompts of one format, system prompt, token budget and rolling summary."""

    def __init__(
        self,
        chat_format: ChatFormat,
        system: str,
        budget: TokenBudget,
        summary: HistorySummary | None = None,
        *,
        first_message: Callable[[], str] = str,
        ending: Sequence[int] | None = None,
    ) -> None:
        """``first_message`` returns as much of it as may stay when its turn does not; called only then, since cutting
        a long one takes 25 ms. ``ending`` replaces that of the format."""
        self.format = chat_format
        self.budget = budget
        self.summary = summary or HistorySummary()
        self.follow_up_key = chat_format.fingerprint
        self._system = system
        self._first_message = first_message
        self._ending = tuple(chat_format.generation_ids if ending is None else ending)
        self._plain_head = self._head(system)

    @cached_property
    def _cut_head(self) -> PromptHead:
        """Head of a prompt without its first turns."""
        first, summary = self.first_message, self.summary.text
        if not (first or summary):
            return self._plain_head
        block = earlier_block(first, summary)
        return self._head(f"{self._system}\n\n{block}" if self._system else block)

    @cached_property
    def first_message(self) -> str:
        """The beginning of the first message, as a prompt without its turn has it."""
        return self._first_message()

    def _head(self, text: str) -> PromptHead:
        covered = f"{self.budget.context_size}\0{text}".encode("utf-8", "surrogatepass")
        return PromptHead(text, f"{self.format.fingerprint}:{hashlib.sha256(covered).hexdigest()[:24]}")

    def render(self, exchanges: Sequence[Exchange]) -> RenderedPrompt:
        """Extend the former prompt, or render all turns that the summary does not cover.

        Turns that do not fit are left out or refused. Raises ContextOverflow.
        """
        *past, new = exchanges
        n_covered = self.n_covered(past)
        if not self._is_piecewise(exchanges[n_covered:]):
            return self._render_whole(exchanges, n_covered)
        past = [self._with_own_tokens(exchange) for exchange in past]
        if extended := self._extend(past, new, n_covered):
            return extended
        # The new turn may have been rendered before its sources were known: that rendering does not count.
        unrendered = replace(new, user_rendered=RenderedTurn())
        uncovered = [*past[n_covered:], unrendered]
        is_exact = self.budget.strategy is Strategy.ERROR and n_chars(uncovered) <= EXACT_CHARS
        follow_ups = [*past[:n_covered], *self.as_follow_ups(uncovered, is_exact=is_exact)]
        n_tokens = sum(map(exchange_size, follow_ups[n_covered + 1 :]))
        limit = self.budget.turns_limit(n_covered)
        if is_exact or n_tokens <= limit:
            prompt = self._starting_at(follow_ups, n_covered, n_covered)
            n_tokens = len(prompt.ids)
            if n_tokens <= limit:
                return prompt
        if self.budget.strategy is Strategy.ERROR:
            raise self.budget.overflow(n_tokens, is_exact=is_exact)
        return self._truncate(follow_ups, n_covered)

    def with_block(self, prompt: RenderedPrompt, block: str) -> RenderedPrompt:
        """Return the prompt with ``block`` before the newest user text; no rendering of an exchange has it."""
        *past, new = prompt.exchanges
        user = f"{block}\n\n{new.user}"
        if not self._is_piecewise(past[prompt.start :]):
            turns = [PastTurn(exchange.user, exchange.answer, exchange.thought) for exchange in past[prompt.start :]]
            return replace(prompt, ids=tuple(self.format.whole(self._head_at(prompt.start).text, turns, user)))
        rendered = new.user_rendered
        before = prompt.ids[: len(prompt.ids) - len(self._ending) - len(rendered.ids)]
        if rendered.key == self.follow_up_key:
            turn = self.format.later_turn(user)
        else:
            turn = self.format.first_turn(self._head_at(prompt.start).text, user)
        return replace(prompt, ids=(*before, *turn, *self._ending))

    def n_covered(self, past: Sequence[Exchange]) -> int:
        """Count the exchanges that the summary covers."""
        n_messages = 0
        for index, exchange in enumerate(past):
            n_messages += exchange.n_messages
            if n_messages > self.summary.n_messages:
                return index
        return len(past)

    def n_tokens_from(self, follow_ups: Sequence[Exchange], start: int) -> int:
        """Count the tokens of a prompt that begins with the exchange at ``start``, or of the head alone at the end."""
        user = follow_ups[start].user if start < len(follow_ups) else ""
        first_turn = self.format.first_turn(self._head_at(start).text, user, limit=self._limit(user))
        n_opening = len(first_turn) + len(self._ending)
        n_answer = sum(len(exchange.answer_rendered.ids) for exchange in follow_ups[start : start + 1])
        return n_opening + n_answer + sum(map(exchange_size, follow_ups[start + 1 :]))

    def as_follow_ups(self, exchanges: Sequence[Exchange], *, is_exact: bool = False) -> list[Exchange]:
        """Return the exchanges with their tokens in the middle of a prompt; stored ones are reused.

        Unless ``is_exact``, those before the last ones that fill the soft limit remain as they are. Of a text longer
        than the context only the beginning is encoded, without a key. No prompt can hold either.
        """
        follow_ups, n_tokens = list(exchanges), 0
        for index in range(len(exchanges) - 1, -1, -1):
            if n_tokens > self.budget.soft_limit and not is_exact:
                break
            exchange = self._with_own_tokens(exchanges[index])
            user, answer = exchange.user_rendered, exchange.answer_rendered
            if user.key != self.follow_up_key:
                limit = self._limit(exchange.user)
                user = self._rendered(self.format.later_turn(exchange.user, limit=limit), limit)
            if answer.key != self.follow_up_key:
                limit = self._limit(exchange.answer + exchange.thought)
                ids = self.format.answer(exchange.answer, exchange.thought, limit=limit) if exchange.answer else []
                answer = self._rendered(ids, limit)
            follow_ups[index] = replace(exchange, user_rendered=user, answer_rendered=answer)
            n_tokens += exchange_size(follow_ups[index])
        return follow_ups

    def _rendered(self, ids: Sequence[int], limit: int | None) -> RenderedTurn:
        is_whole = limit is None or len(ids) <= limit
        return RenderedTurn(tuple(ids), self.follow_up_key if is_whole else "")

    def _limit(self, text: str) -> int | None:
        """Return the limit for encoding a text that may be longer than the context; None for one that takes no time."""
        return None if len(text) <= EXACT_CHARS else self.budget.hard_limit

    def prefix_from(self, follow_ups: Sequence[Exchange], start: int) -> tuple[int, ...]:
        """Return the prefix of the next prompt if that begins with the exchange at ``start``."""
        ids = self._starting_at(follow_ups, start, start).ids
        return ids[: len(ids) - len(self._ending)]

    def _with_own_tokens(self, exchange: Exchange) -> Exchange:
        """Return a generated answer with the tokens that a past one has: its own where the format shows them so."""
        rendered = exchange.answer_rendered
        if rendered.key == self.follow_up_key or rendered.key != self.format.generated_key:
            return exchange
        ids = self.format.generated_answer(rendered.ids, exchange.answer, exchange.thought)
        return replace(exchange, answer_rendered=RenderedTurn(tuple(ids), self.follow_up_key))

    def _is_piecewise(self, exchanges: Sequence[Exchange]) -> bool:
        has_thoughts = any(exchange.thought for exchange in exchanges)
        has_results = any(is_results(exchange.user) for exchange in exchanges)
        # A head without a system prompt may still have a block about earlier turns: both kinds have to be exact.
        return all(
            self.format.is_piecewise(has_system=has_system, has_thoughts=has_thoughts, has_results=has_results)
            for has_system in {bool(self._system), True}
        )

    def _render_whole(self, exchanges: Sequence[Exchange], n_covered: int) -> RenderedPrompt:
        """Leave out ever more of the oldest turns until the rest fits. Raises ContextOverflow."""
        last = len(exchanges) - 1
        start, limit = n_covered, self.budget.turns_limit(n_covered)
        while True:
            is_exact = n_chars(exchanges[start:]) <= EXACT_CHARS
            *past, new = exchanges[start:]
            turns = [PastTurn(exchange.user, exchange.answer, exchange.thought) for exchange in past]
            most = None if is_exact else self.budget.hard_limit
            ids = tuple(self.format.whole(self._head_at(start).text, turns, new.user, limit=most))
            if len(ids) <= limit or start == last:
                break
            if self.budget.strategy is Strategy.ERROR:
                raise self.budget.overflow(len(ids), is_exact=is_exact)
            start += max(1, (last - start) // 4)
            limit = self.budget.truncation_target
        if len(ids) > self.budget.hard_limit:
            raise self.budget.overflow(len(ids), is_exact=is_exact)
        return RenderedPrompt(
            ids=ids,
            exchanges=tuple(exchanges),
            start=start,
            n_summarized=_n_messages(exchanges[:n_covered]),
            n_left_out=_n_messages(exchanges[n_covered:start]),
        )

    def _extend(self, past: Sequence[Exchange], new: Exchange, n_covered: int) -> RenderedPrompt | None:
        """Append a follow-up to the former prompt and answer; None if they cannot be reused."""
        start = self._reusable_start(past)
        # Turns left out once stay out, unless the client prefers an error or a summary was made since.
        if start is None or start < n_covered or (start > 0 and self.budget.strategy is Strategy.ERROR):
            return None
        follow_up = RenderedTurn(tuple(self.format.later_turn(new.user)), self.follow_up_key)
        rendered = [*past, replace(new, user_rendered=follow_up)]
        if sum(map(exchange_size, rendered[start:])) + len(self._ending) > self.budget.turns_limit(start):
            return None
        return self._assemble(rendered, start, n_covered)

    def _reusable_start(self, past: Sequence[Exchange]) -> int | None:
        """Return the index of the opening of a history that can be repeated token for token."""
        for index in range(len(past) - 1, -1, -1):
            exchange = past[index]
            # From the end: the latest opening counts, and no turn under another key may follow it.
            if exchange.answer_rendered.key != self.follow_up_key:
                return None
            if exchange.user_rendered.key != self.follow_up_key:
                return index if exchange.user_rendered.key == self._head_at(index).key else None
        return None

    def _head_at(self, start: int) -> PromptHead:
        return self._cut_head if start > 0 else self._plain_head

    def _truncate(self, follow_ups: Sequence[Exchange], n_covered: int) -> RenderedPrompt:
        last = len(follow_ups) - 1
        # Sizes from the end: the oldest start whose prompt is within the target. The opening differs from the
        # follow-up by the head, so it is rendered only for the candidate.
        size = len(self.format.first_turn(self._cut_head.text, "")) + exchange_size(follow_ups[last])
        size += len(self._ending)
        start = last
        while start > n_covered and size + exchange_size(follow_ups[start - 1]) <= self.budget.truncation_target:
            start -= 1
            size += exchange_size(follow_ups[start])
        prompt = self._starting_at(follow_ups, start, n_covered)
        if len(prompt.ids) > self.budget.hard_limit:
            # Without the block about earlier turns, too: the question has precedence.
            *past, new = follow_ups
            opening = RenderedTurn(tuple(self.format.first_turn(self._plain_head.text, new.user)), self._plain_head.key)
            exchanges = (*past, replace(new, user_rendered=opening))
            ids = (*opening.ids, *self._ending)
            prompt = RenderedPrompt(ids=ids, exchanges=exchanges, start=last, n_left_out=_n_messages(past))
        if len(prompt.ids) > self.budget.hard_limit:
            raise self.budget.overflow(len(prompt.ids))
        return prompt

    def _starting_at(self, follow_ups: Sequence[Exchange], start: int, n_covered: int) -> RenderedPrompt:
        """Begin the prompt with the exchange at ``start``; exchanges before it keep their rendering."""
        head = self._head_at(start)
        user = follow_ups[start].user
        opening = RenderedTurn(tuple(self.format.first_turn(head.text, user, limit=self._limit(user))), head.key)
        first = replace(follow_ups[start], user_rendered=opening)
        return self._assemble([*follow_ups[:start], first, *follow_ups[start + 1 :]], start, n_covered)

    def _assemble(self, rendered: Sequence[Exchange], start: int, n_covered: int) -> RenderedPrompt:
        ids: list[int] = []
        for exchange in rendered[start:]:
            ids += exchange.user_rendered.ids
            ids += exchange.answer_rendered.ids
        return RenderedPrompt(
            ids=(*ids, *self._ending),
            exchanges=tuple(rendered),
            start=start,
            n_summarized=_n_messages(rendered[:n_covered]),
            n_left_out=_n_messages(rendered[n_covered:start]),
        )


def exchange_size(exchange: Exchange) -> int:
    return len(exchange.user_rendered.ids) + len(exchange.answer_rendered.ids)


def n_chars(exchanges: Sequence[Exchange]) -> int:
    return sum(len(exchange.user) + len(exchange.answer) + len(exchange.thought) for exchange in exchanges)


def _n_messages(exchanges: Sequence[Exchange]) -> int:
    return sum(exchange.n_messages for exchange in exchanges)

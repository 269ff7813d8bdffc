"""Puts a prompt together from a conversation, within the context, repeating former prompts token for token.

    prompt of turn n  =  opening | answer 1 | follow-up 2 | answer 2 | ... | follow-up n
                         '------- what turn n-1 was asked and answered ------'

What each user turn was rendered to is kept with a key. An opening's key covers format, context size and head (system
text, and what is remembered of turns before the opening), a follow-up's the format alone. A kept history is usable
when its last opening is under the key in use and only follow-ups of this format come after it; turns before that
opening were left out earlier and stay out. A new summary is a new head: then, and only then, a prompt begins anew.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from chat.enums import Strategy
from chat.prompting.chat_templates import ChatFormat
from chat.prompting.history_notes import earlier_block
from chat.prompting.token_budget import TokenBudget


@dataclass(frozen=True)
class Rendered:
    """Token ids and the key under which they are valid."""

    ids: tuple[int, ...] = ()
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A user turn, memories included, and the answer to it; the last exchange of a prompt has none yet."""

    user: str
    answer: str = ""
    user_rendered: Rendered = Rendered()
    answer_rendered: Rendered = Rendered()
    n_messages: int = 2


@dataclass(frozen=True, kw_only=True)
class RenderedPrompt:
    """``exchanges`` are those given, each with what it is rendered to now. Counted in messages: what the summary
    stands for, and what neither it nor the prompt has."""

    ids: tuple[int, ...]
    exchanges: tuple[Exchange, ...]
    n_summarized: int = 0
    n_left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class HistorySummary:
    """The summary of the first ``n_messages``, which stands in a prompt for them. Version 0: there is none.
    ``trouble``: how a newer one is doing."""

    summary: str = ""
    n_messages: int = 0
    version: int = 0
    trouble: str = ""


@dataclass(frozen=True)
class PromptHead:
    """What stands before the first turn, and the key of an opening that begins with it."""

    text: str
    key: str


class ContextWindow:
    """Builds prompts of one format, system prompt and state of what is remembered."""

    def __init__(
        self,
        chat_format: ChatFormat,
        system: str,
        budget: TokenBudget,
        history_summary: HistorySummary | None = None,
        *,
        first: Callable[[], str] = str,
    ) -> None:
        """``first``: as much of the first message as may stay when its turn does not; asked for only then, since to
        cut a long one is 25 ms."""
        self.format = chat_format
        self.budget = budget
        self.history_summary = history_summary or HistorySummary()
        self.follow_up_key = chat_format.fingerprint
        self._system = system
        self._first = first
        self._whole = self._head(system)

    @cached_property
    def _cut(self) -> PromptHead:
        """What a prompt begins with whose first turns are not in it."""
        first, summary = self._first(), self.history_summary.summary
        if not (first or summary):
            return self._whole
        block = earlier_block(first, summary)
        return self._head(f"{self._system}\n\n{block}" if self._system else block)

    def _head(self, text: str) -> PromptHead:
        covered = f"{self.budget.context_size}\0{text}".encode("utf-8", "surrogatepass")
        return PromptHead(text, f"{self.format.fingerprint}:{hashlib.sha256(covered).hexdigest()[:24]}")

    def prompt(self, exchanges: Sequence[Exchange]) -> RenderedPrompt:
        """The prompt for the last exchange. Raises ContextOverflow."""
        *past, new = exchanges
        n_covered = self.n_covered(past)
        return self._continued(past, new, n_covered) or self._anew(past, new, n_covered)

    def n_covered(self, past: Sequence[Exchange]) -> int:
        """How many exchanges the summary stands for."""
        n_messages = 0
        for index, exchange in enumerate(past):
            n_messages += exchange.n_messages
            if n_messages > self.history_summary.n_messages:
                return index
        return len(past)

    def n_tokens_alone(self, user: str) -> int:
        """Tokens of a prompt of nothing but the system text and this turn."""
        return len(self.format.opening(self._whole.text, user))

    def n_tokens_from(self, follow_ups: Sequence[Exchange], start: int) -> int:
        """Tokens of a prompt that begins with the exchange at ``start``; nothing after the head if there is none."""
        user = follow_ups[start].user if start < len(follow_ups) else ""
        own = len(self.format.opening(self._head_at(start).text, user))
        answers = [len(exchange.answer_rendered.ids) for exchange in follow_ups[start : start + 1]]
        return own + sum(answers) + sum(map(exchange_size, follow_ups[start + 1 :]))

    def as_follow_up(self, exchange: Exchange) -> Exchange:
        """The exchange with the tokens it has in the middle of a prompt; those kept from earlier are taken as they
        are."""
        user, answer = exchange.user_rendered, exchange.answer_rendered
        if user.key != self.follow_up_key:
            user = Rendered(tuple(self.format.follow_up(exchange.user)), self.follow_up_key)
        if answer.key != self.follow_up_key:
            answer = Rendered(tuple(self.format.answer(exchange.answer)) if exchange.answer else (), self.follow_up_key)
        return replace(exchange, user_rendered=user, answer_rendered=answer)

    def beginning(self, follow_ups: Sequence[Exchange], start: int) -> tuple[int, ...]:
        """What the next prompt begins with, if it begins with the exchange at ``start``."""
        return self._from(follow_ups, start, start).ids

    def _continued(self, past: Sequence[Exchange], new: Exchange, n_covered: int) -> RenderedPrompt | None:
        """The former prompt and answer as they were, and one more follow-up; None if that is not possible."""
        start = self._kept_start(past)
        # What was left out once stays out, unless the client would rather have an error or a summary has come since.
        if start is None or start < n_covered or (start > 0 and self.budget.strategy is Strategy.ERROR):
            return None
        follow_up = Rendered(tuple(self.format.follow_up(new.user)), self.follow_up_key)
        rendered = [*past, replace(new, user_rendered=follow_up)]
        if sum(map(exchange_size, rendered[start:])) > self.budget.soft_limit:
            return None
        return self._made(rendered, start, n_covered)

    def _kept_start(self, past: Sequence[Exchange]) -> int | None:
        """Index of the opening of a history that can be repeated as it was."""
        for index in range(len(past) - 1, -1, -1):
            exchange = past[index]
            # From the end: the latest opening counts, and nothing foreign may stand after it.
            if exchange.answer_rendered.key != self.follow_up_key:
                return None
            if exchange.user_rendered.key != self.follow_up_key:
                return index if exchange.user_rendered.key == self._head_at(index).key else None
        return None

    def _head_at(self, start: int) -> PromptHead:
        return self._cut if start > 0 else self._whole

    def _anew(self, past: Sequence[Exchange], new: Exchange, n_covered: int) -> RenderedPrompt:
        """Rendered from what is not summarised; what does not fit is left out or refused."""
        # The new turn may have been rendered before it got its memories: what was kept of it does not count.
        unrendered = replace(new, user_rendered=Rendered())
        rest = [self.as_follow_up(exchange) for exchange in (*past[n_covered:], unrendered)]
        follow_ups = [*past[:n_covered], *rest]
        whole = self._from(follow_ups, n_covered, n_covered)
        if len(whole.ids) <= self.budget.soft_limit:
            return whole
        if self.budget.strategy is Strategy.ERROR:
            raise self.budget.overflow(len(whole.ids))
        return self._shortened(follow_ups, n_covered)

    def _shortened(self, follow_ups: Sequence[Exchange], n_covered: int) -> RenderedPrompt:
        last = len(follow_ups) - 1
        # Sizes from the end: the oldest start whose prompt is within the target. The opening differs from the
        # follow-up by the head, so it is rendered only for the candidate.
        size = len(self.format.opening(self._cut.text, "")) + exchange_size(follow_ups[last])
        start = last
        while start > n_covered and size + exchange_size(follow_ups[start - 1]) <= self.budget.truncation_target:
            start -= 1
            size += exchange_size(follow_ups[start])
        prompt = self._from(follow_ups, start, n_covered)
        if len(prompt.ids) > self.budget.hard_limit:
            prompt = self._bare(follow_ups)
        if len(prompt.ids) > self.budget.hard_limit:
            raise self.budget.overflow(len(prompt.ids))
        return prompt

    def _bare(self, follow_ups: Sequence[Exchange]) -> RenderedPrompt:
        """Not even what is remembered of earlier turns: the question goes first."""
        *past, new = follow_ups
        opening = Rendered(tuple(self.format.opening(self._whole.text, new.user)), self._whole.key)
        exchanges = (*past, replace(new, user_rendered=opening))
        return RenderedPrompt(ids=opening.ids, exchanges=exchanges, n_left_out=_n_messages(past))

    def _from(self, follow_ups: Sequence[Exchange], start: int, n_covered: int) -> RenderedPrompt:
        """The prompt that begins with the exchange at ``start``; those before it keep what they were rendered to."""
        head = self._head_at(start)
        opening = Rendered(tuple(self.format.opening(head.text, follow_ups[start].user)), head.key)
        first = replace(follow_ups[start], user_rendered=opening)
        return self._made([*follow_ups[:start], first, *follow_ups[start + 1 :]], start, n_covered)

    def _made(self, rendered: Sequence[Exchange], start: int, n_covered: int) -> RenderedPrompt:
        return RenderedPrompt(
            ids=_joined(rendered[start:]),
            exchanges=tuple(rendered),
            n_summarized=_n_messages(rendered[:n_covered]),
            n_left_out=_n_messages(rendered[n_covered:start]),
        )


def exchange_size(exchange: Exchange) -> int:
    return len(exchange.user_rendered.ids) + len(exchange.answer_rendered.ids)


def _joined(exchanges: Sequence[Exchange]) -> tuple[int, ...]:
    ids: list[int] = []
    for exchange in exchanges:
        ids += exchange.user_rendered.ids
        ids += exchange.answer_rendered.ids
    return tuple(ids)


def _n_messages(exchanges: Sequence[Exchange]) -> int:
    return sum(exchange.n_messages for exchange in exchanges)

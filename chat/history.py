"""Puts a prompt together from a conversation, within the context, repeating former prompts token for token.

    prompt of turn n  =  opening | answer 1 | follow-up 2 | answer 2 | ... | follow-up n
                         '------- what turn n-1 was asked and answered ------'

What each user turn was rendered to is kept with a key. An opening's key covers format, system prompt and context
size, a follow-up's the format alone. A kept history is usable when its last opening is under the key in use
and only follow-ups of this format come after it; turns before that opening were left out earlier and stay
out. Knows no database.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chat.errors import ContextOverflow
from chat.formats import ChatFormat
from chat.requests import Strategy

# When turns must go, more go than must: otherwise every later turn would move the beginning again,
# and nothing computed before could be used again.
KEEP_SHARE = 0.75
# The part of the context that an answer may ask to be kept free by leaving out old turns.
ANSWER_SHARE = 0.25


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
class Prompt:
    """``exchanges`` are those given, each with what it is rendered to now (nothing if left out)."""

    ids: tuple[int, ...]
    exchanges: tuple[Exchange, ...]
    n_left_out: int = 0  # messages


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many tokens a prompt may have."""

    context_size: int
    max_tokens: int  # of the answer
    strategy: Strategy = Strategy.SUMMARIZE

    @property
    def hard_limit(self) -> int:
        """One token of answer must fit."""
        return self.context_size - 1

    @property
    def wanted_limit(self) -> int:
        """Leaves room for the answer, at the cost of old turns if the strategy allows it."""
        if self.strategy is Strategy.ERROR:
            return self.hard_limit
        reserve = min(self.max_tokens, int(self.context_size * ANSWER_SHARE))
        return self.context_size - max(1, reserve)

    def overflow(self, n_tokens: int) -> ContextOverflow:
        return ContextOverflow(prompt_tokens=n_tokens, context_size=self.context_size)


class History:
    """Builds prompts of one format and system prompt."""

    def __init__(self, chat_format: ChatFormat, system: str, budget: Budget) -> None:
        self.format = chat_format
        self.system = system
        self.budget = budget
        self.follow_up_key = chat_format.fingerprint
        covered = f"{budget.context_size}\0{system}".encode("utf-8", "surrogatepass")
        self.opening_key = f"{chat_format.fingerprint}:{hashlib.sha256(covered).hexdigest()[:24]}"

    def prompt(self, exchanges: Sequence[Exchange]) -> Prompt:
        """The prompt for the last exchange. Raises ContextOverflow."""
        *past, new = exchanges
        return self._continued(past, new) or self._anew(past, new)

    def n_alone(self, user: str) -> int:
        """Tokens of a prompt of nothing but the system text and this turn."""
        return len(self.format.opening(self.system, user))

    def _continued(self, past: Sequence[Exchange], new: Exchange) -> Prompt | None:
        """The former prompt and answer as they were, and one more follow-up; None if that is not possible."""
        start = self._kept_start(past)
        # What was left out once stays out, unless the client would rather have an error.
        if start is None or (start > 0 and self.budget.strategy is Strategy.ERROR):
            return None
        follow_up = Rendered(tuple(self.format.follow_up(new.user)), self.follow_up_key)
        rendered = [*past, replace(new, user_rendered=follow_up)]
        ids = _joined(rendered[start:])
        if len(ids) > self.budget.wanted_limit:
            return None
        return Prompt(ids=ids, exchanges=tuple(rendered), n_left_out=_n_messages(past[:start]))

    def _kept_start(self, past: Sequence[Exchange]) -> int | None:
        """Index of the opening of a history that can be repeated as it was."""
        for index in range(len(past) - 1, -1, -1):
            exchange = past[index]
            # From the end: the latest opening counts, and nothing foreign may stand after it.
            if exchange.answer_rendered.key != self.follow_up_key:
                return None
            if exchange.user_rendered.key == self.opening_key:
                return index
            if exchange.user_rendered.key != self.follow_up_key:
                return None
        return None

    def _anew(self, past: Sequence[Exchange], new: Exchange) -> Prompt:
        """Everything rendered again; what does not fit is left out or refused."""
        follow_ups = [self._as_follow_up(exchange) for exchange in (*past, new)]
        whole = self._from(follow_ups, 0)
        if len(whole.ids) <= self.budget.wanted_limit:
            return whole
        if self.budget.strategy is Strategy.ERROR:
            raise self.budget.overflow(len(whole.ids))
        return self._shortened(follow_ups)

    def _shortened(self, follow_ups: Sequence[Exchange]) -> Prompt:
        target = int(self.budget.wanted_limit * KEEP_SHARE)
        last = len(follow_ups) - 1
        # Sizes from the end: the oldest start whose prompt is within the target. The opening differs from the
        # follow-up by the system text, so it is rendered only for the candidate.
        size = self.n_alone("") + len(follow_ups[last].user_rendered.ids)
        start = last
        while start > 0 and size + _size(follow_ups[start - 1]) <= target:
            start -= 1
            size += _size(follow_ups[start])
        prompt = self._from(follow_ups, start)
        if len(prompt.ids) > self.budget.hard_limit:
            raise self.budget.overflow(len(prompt.ids))
        return prompt

    def _as_follow_up(self, exchange: Exchange) -> Exchange:
        answer = exchange.answer_rendered
        if answer.key != self.follow_up_key:
            answer = Rendered(tuple(self.format.answer(exchange.answer)) if exchange.answer else (), self.follow_up_key)
        user = Rendered(tuple(self.format.follow_up(exchange.user)), self.follow_up_key)
        return replace(exchange, user_rendered=user, answer_rendered=answer)

    def _from(self, follow_ups: Sequence[Exchange], start: int) -> Prompt:
        """The prompt that begins with the exchange at ``start``; those before it are not rendered at all."""
        left_out = [replace(exchange, user_rendered=Rendered()) for exchange in follow_ups[:start]]
        opening = Rendered(tuple(self.format.opening(self.system, follow_ups[start].user)), self.opening_key)
        kept = [replace(follow_ups[start], user_rendered=opening), *follow_ups[start + 1 :]]
        return Prompt(ids=_joined(kept), exchanges=(*left_out, *kept), n_left_out=_n_messages(left_out))


def _size(exchange: Exchange) -> int:
    return len(exchange.user_rendered.ids) + len(exchange.answer_rendered.ids)


def _joined(exchanges: Sequence[Exchange]) -> tuple[int, ...]:
    ids: list[int] = []
    for exchange in exchanges:
        ids += exchange.user_rendered.ids
        ids += exchange.answer_rendered.ids
    return tuple(ids)


def _n_messages(exchanges: Sequence[Exchange]) -> int:
    return sum(exchange.n_messages for exchange in exchanges)

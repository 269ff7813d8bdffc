"""The answers of one call: several generations that a client sees as choices."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from django.http import HttpRequest

from chat.access.callers import Caller
from chat.api.openai.logprob_queue import LogprobQueue
from chat.api.turn_requests import AcceptedTurn, lines_to_end
from chat.errors import InvalidRequest
from chat.schemas.openai.chat_bodies import CompletionCall
from chat.streaming.events import WireLine, lines_and_pings
from chat.streaming.merging import merged
from inference.config.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AcceptedCall:
    """An accepted call with a turn for each choice, in order, and the names that its answers carry."""

    call: CompletionCall
    turns: tuple[AcceptedTurn, ...]
    model: str
    tokenizer: Tokenizer
    n_prompts: int = 1
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def system_fingerprint(self) -> str:
        # Clients compare it to notice another model: seeds give the same text under the same fingerprint only.
        return f"b{self.tokenizer.fingerprint[:12]}"

    @property
    def id(self) -> uuid.UUID:
        return self.turns[0].turn.generation_id


@dataclass
class Choice:
    """A whole answer: its text and thought, the log-probabilities of its tokens, and its final line."""

    text: str = ""
    thought: str = ""
    logprobs: list[WireLine] = field(default_factory=list)
    last: WireLine = field(default_factory=dict)


def accepted_turns(first: AcceptedTurn) -> tuple[AcceptedTurn, ...]:
    return (first, *(AcceptedTurn(turn, first.stops) for turn in first.turn.alternatives))


def check_key(request: HttpRequest, n_choices: int) -> None:
    """Refuse an Idempotency-Key for a call of several generations: a key stands for one."""
    if n_choices > 1 and "Idempotency-Key" in request.headers:
        raise InvalidRequest("an Idempotency-Key cannot be combined with several choices", code="unsupported")


async def whole_choices(accepted: AcceptedCall, caller: Caller) -> list[Choice]:
    """Wait for all answers. Raises ChatError when one of them fails; the others then lose their reader."""
    tasks = [asyncio.ensure_future(_whole(turn, caller)) for turn in accepted.turns]
    try:
        return await asyncio.gather(*tasks)
    finally:
        # An answer without a reader is cancelled after the grace period, unless batch work or a key keeps it.
        for task in tasks:
            task.cancel()


async def _whole(accepted: AcceptedTurn, caller: Caller) -> Choice:
    choice, logprobs = Choice(), LogprobQueue()
    # Joined once at the end: adding to a string would copy it for every token.
    texts: list[str] = []
    thoughts: list[str] = []
    async with aclosing(lines_to_end(accepted, caller)) as source:
        async for line in source:
            texts.append(line["token"])
            thoughts.append(line.get("thought", ""))
            choice.logprobs += logprobs.push(line)
            choice.last = line
    choice.text, choice.thought = "".join(texts), "".join(thoughts)
    return choice


def choice_lines(accepted: AcceptedCall, caller: Caller) -> AsyncGenerator[tuple[int, WireLine | None], None]:
    """Yield the lines of all choices as they come, each with the number of its choice; None for a ping."""
    return merged([lines_and_pings(turn.turn, caller=caller, stops=turn.stops) for turn in accepted.turns])

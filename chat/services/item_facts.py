"""Items that stored messages were sent as, and the calls of tools that later outputs are for."""

from collections.abc import Sequence
from typing import Any

from chat.models import Message, Role
from chat.schemas.decoding import invalid_field
from chat.schemas.openai.tool_answers import call_id
from chat.schemas.requests import RESPONSE
from chat.tool_calling.call_parser import parse_answer
from chat.tool_calling.call_text import CALL_START
from inference.models import Generation

Facts = dict[str, Any]


def item_facts(messages: Sequence[Message], generation: Generation | None = None) -> list[Facts]:
    """Return for each message what the response that brought it has kept of its item; ``generation`` is the answer
    after them."""
    facts: list[Facts] = [{} for _ in messages]
    answers = [(index, message.generation) for index, message in enumerate(messages) if message.generation]
    for end, answer in [*answers, *([(len(messages), generation)] if generation else [])]:
        sent = answer.details.get(RESPONSE, {}).get("items", [])
        # The items of a call end where its answer begins; of a history that was known, only the last are new.
        for distance, fact in enumerate(reversed(sent[-end:] if end else []), start=1):
            facts[end - distance] = fact or facts[end - distance]
    return facts


def check_outputs(outputs: Sequence[tuple[str, str]], messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for the first output, of pairs of path and call id, that belongs to no call."""
    if not outputs:
        return
    call_ids: set[str] = set()
    for message, facts in zip(messages, item_facts(messages), strict=True):
        if message.role != Role.ASSISTANT or CALL_START not in message.text:
            continue
        calls = parse_answer(message.text).calls
        if "calls" in facts:
            call_ids.update(facts["calls"])
        elif message.generation_id:
            call_ids.update(call_id(message.generation_id, index) for index in range(len(calls)))
        elif calls:
            return  # a copy in a branch, or a sent history: no row has the ids of its calls
    for path, name in outputs:
        if name not in call_ids:
            raise invalid_field(path, "names no call of the conversation")

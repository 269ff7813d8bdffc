"""Calls of tools in a stored conversation, which later outputs belong to."""

from collections.abc import Sequence

from chat.models import Message, Role
from chat.schemas.decoding import invalid_field
from chat.schemas.openai.tool_answers import call_id
from chat.services.responses.input_items import item_facts
from chat.tool_calling.call_parser import parse_answer
from chat.tool_calling.call_text import CALL_START


def check_outputs(outputs: Sequence[tuple[str, str]], messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for the first output, of pairs of path and call id, that belongs to no call."""
    if not outputs:
        return
    known: set[str] = set()
    for message, facts in zip(messages, item_facts(messages), strict=True):
        if message.role != Role.ASSISTANT or CALL_START not in message.text:
            continue
        calls = parse_answer(message.text).calls
        if "calls" in facts:
            known.update(facts["calls"])
        elif message.generation_id:
            known.update(call_id(message.generation_id, index) for index in range(len(calls)))
        elif calls:
            return  # a copy in a branch, or a sent history: no row has the ids of its calls
    for path, name in outputs:
        if name not in known:
            raise invalid_field(path, "names no call of the conversation")

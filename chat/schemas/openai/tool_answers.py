"""Calls of tools in answers, whole and in deltas. Their ids follow from the generation, so that a repeated read has
the same."""

import uuid

from msgspec import UNSET

from chat.schemas.openai.chat_answers import (
    AnsweredFunction,
    AnsweredToolCall,
    ChoiceDelta,
    FunctionDelta,
    ToolCallDelta,
)
from chat.tool_calling.call_parser import AnswerDelta, ArgumentsDelta, CallEvent, CallStart, ParsedAnswer


def call_id(generation_id: uuid.UUID, index: int) -> str:
    """Return the id of the call with that index in the answer."""
    return f"call_{generation_id.hex[:22]}{index:02x}"


def tool_calls_of(answer: ParsedAnswer, generation_id: uuid.UUID) -> list[AnsweredToolCall]:
    return [
        AnsweredToolCall(
            id=call_id(generation_id, index), function=AnsweredFunction(name=call.name, arguments=call.arguments)
        )
        for index, call in enumerate(answer.calls)
    ]


def delta_of(event: CallEvent, generation_id: uuid.UUID) -> ChoiceDelta:
    match event:
        case AnswerDelta(text):
            return ChoiceDelta(content=text)
        case CallStart(index, name):
            function = FunctionDelta(name=name, arguments="")
            call = ToolCallDelta(index=index, id=call_id(generation_id, index), type="function", function=function)
        case ArgumentsDelta(index, text):
            call = ToolCallDelta(index=index, id=UNSET, function=FunctionDelta(arguments=text))
    return ChoiceDelta(tool_calls=[call])

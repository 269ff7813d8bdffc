"""The events of one message as server-sent events."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from chat.api.anthropic.stop_search import StopSearch
from chat.schemas.answer_types import as_json
from chat.schemas.anthropic.answers import (
    BlockDelta,
    BlockDeltaEvent,
    BlockStartEvent,
    BlockStopEvent,
    MessageAnswerBody,
    MessageDelta,
    MessageDeltaEvent,
    MessageStartEvent,
    MessageStopEvent,
    PingEvent,
)
from chat.schemas.anthropic.errors import AnthropicErrorAnswer
from chat.schemas.anthropic.rendering import begun_block, citations_of, stop_reason, usage_of_line
from chat.schemas.responses.output import GrowingOutput, ItemBegan, ItemGrew, OutputKind, OutputStep
from chat.streaming.events import WireLine
from inference.config.tokenizer import get_tokenizer

# Characters that no JSON text holds unescaped: marks the place of the text in a rendered delta.
_MARK = "\x00"
_DELTAS = {
    OutputKind.THOUGHT: BlockDelta(type="thinking_delta", thinking=_MARK),
    OutputKind.CALL: BlockDelta(type="input_json_delta", partial_json=_MARK),
    OutputKind.MESSAGE: BlockDelta(type="text_delta", text=_MARK),
}


class MessageEventWriter:
    """Renders the events of one message."""

    def __init__(self, generation_id: uuid.UUID, *, may_call: bool, stops: Sequence[str] = ()) -> None:
        self._generation_id = generation_id
        self._stop = StopSearch(stops)
        self._output = GrowingOutput(may_call=may_call)
        self._template = (b"", b"")  # bytes before and after the text of a delta: thousands follow each other

    def started(self, message: MessageAnswerBody) -> bytes:
        return _event(MessageStartEvent(message=message)) + self.ping()

    def ping(self) -> bytes:
        return _event(PingEvent())

    def token(self, line: WireLine) -> bytes:
        self._stop.push(line)
        return b"".join(map(self._step, self._output.push(line.get("thought", ""), line["token"])))

    def ended(self, last: WireLine) -> bytes:
        events = self.token(last) + b"".join(map(self._step, self._output.finish()))
        for item in self._output.items[-1:]:
            if item.kind is OutputKind.MESSAGE:
                for citation in citations_of(item, last):
                    delta = BlockDelta(type="citations_delta", citation=citation)
                    events += _event(BlockDeltaEvent(index=item.index, delta=delta))
            events += _event(BlockStopEvent(index=item.index))
        stop = self._stop.find(get_tokenizer().vocabulary)
        ending = MessageDelta(stop_reason=stop_reason(self._output, last, stop), stop_sequence=stop)
        events += _event(MessageDeltaEvent(delta=ending, usage=usage_of_line(last)))
        return events + _event(MessageStopEvent())

    def broken(self, error: AnthropicErrorAnswer) -> bytes:
        return _event(error)

    def _step(self, step: OutputStep) -> bytes:
        if isinstance(step, ItemGrew):
            before, after = self._template
            return before + json.dumps(step.text).encode("ascii") + after
        index = step.item.index
        if isinstance(step, ItemBegan):
            event = _event(BlockDeltaEvent(index=index, delta=_DELTAS[step.item.kind]))
            before, _, after = event.partition(json.dumps(_MARK).encode("ascii"))
            self._template = before, after
            return _event(BlockStartEvent(index=index, content_block=begun_block(step.item, self._generation_id)))
        return _event(BlockStopEvent(index=index))


def _event(event: Struct) -> bytes:
    body: dict[str, Any] = as_json(event)
    # Escaped to ASCII: many clients split at U+2028 and U+0085 too, which JSON leaves as they are.
    data = json.dumps(body, ensure_ascii=True, allow_nan=False)
    return f"event: {body['type']}\ndata: {data}\n\n".encode("ascii")

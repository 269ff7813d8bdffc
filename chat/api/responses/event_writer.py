"""The events of one response as server-sent events.

Events and their numbers are a pure function of the row and its tokens: a stream that is resumed, from the token log or
from the row, makes the same events again and leaves out those that the client has.
"""

import json
from typing import Any

from msgspec import Struct

from chat.errors import ChatError
from chat.schemas.answer_types import as_json
from chat.schemas.openai.errors import OpenAIError
from chat.schemas.openai.rendering import token_logprob
from chat.schemas.responses.answers import (
    FunctionCallItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseAnswer,
    ResponseStatus,
)
from chat.schemas.responses.events import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ContentPartEvent,
    OutputItemEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    ResponseStateEvent,
    StreamErrorEvent,
    TextAnnotationEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from chat.schemas.responses.output import GrowingOutput, ItemBegan, ItemGrew, OutputKind, OutputStep
from chat.schemas.responses.rendering import (
    ended_response,
    finish,
    is_background,
    may_call,
    output_item,
    started_response,
)
from chat.streaming.events import WireLine
from inference.config.tokenizer import get_tokenizer
from inference.models import Generation

NOTHING_SENT = -1
_FINAL_EVENTS: dict[ResponseStatus, str] = {"completed": "response.completed", "failed": "response.failed"}
# Characters that no JSON text holds unescaped: they mark the places of the number and the text in a rendered event.
_MARK, _NUMBER = "\x00", -77
_DELTAS: dict[OutputKind, type[TextDeltaEvent | ReasoningDeltaEvent | ArgumentsDeltaEvent]] = {
    OutputKind.THOUGHT: ReasoningDeltaEvent,
    OutputKind.MESSAGE: TextDeltaEvent,
    OutputKind.CALL: ArgumentsDeltaEvent,
}


class ResponseEventWriter:
    """Renders the events after number ``after``. ``generation`` is the row of the response, ended or not."""

    def __init__(self, generation: Generation, *, after: int = NOTHING_SENT) -> None:
        self._generation = generation
        self._after = after
        self._next = 0
        self._output = GrowingOutput(may_call=may_call(generation))
        # Bytes before, between and after number and text of a delta: thousands follow each other.
        self._templates: dict[OutputKind, tuple[bytes, bytes, bytes]] = {}

    def started(self) -> bytes:
        created: ResponseStatus = "queued" if is_background(self._generation) else "in_progress"
        events = self._state("response.created", started_response(self._generation, created))
        if created == "queued":
            events += self._state("response.queued", started_response(self._generation, created))
        return events + self._state("response.in_progress", started_response(self._generation, "in_progress"))

    def token(self, line: WireLine) -> bytes:
        logprob = token_logprob(line["logprobs"], get_tokenizer()) if "logprobs" in line else None
        return b"".join(map(self._step, self._output.push(line.get("thought", ""), line["token"], logprob)))

    def ended(self, generation: Generation, last: WireLine) -> bytes:
        """Return the rest of the events; ``generation`` is the row at its end, ``last`` the final line."""
        events = self.token(last)
        self._generation = generation
        events += b"".join(map(self._step, finish(self._output, generation)))
        response = ended_response(generation, last, self._output)
        for item, rendered in zip(self._output.items, response.output, strict=True):
            events += self._done(item.index, rendered) if item.is_open else b""
        return events + self._state(_FINAL_EVENTS.get(response.status, "response.incomplete"), response)

    def broken(self, error: ChatError) -> bytes:
        """Return the event of a stream that cannot go on. It takes no number: resuming goes on behind the last one."""
        body = OpenAIError.of(error)
        number = max(self._after, self._next - 1, 0)
        event = StreamErrorEvent(sequence_number=number, code=body.code, message=body.message, param=body.param)
        return _framed(event.type, as_json(event))

    def _step(self, step: OutputStep) -> bytes:
        if isinstance(step, ItemGrew):
            return self._grown(step)
        item = step.item
        rendered = output_item(item, self._generation)
        if not isinstance(step, ItemBegan):
            return self._done(item.index, rendered)
        place = {"item_id": rendered.id, "output_index": item.index}
        self._templates[item.kind] = self._template(item.kind, place)
        events = self._event(OutputItemEvent, type="response.output_item.added", output_index=item.index, item=rendered)
        if item.kind is OutputKind.CALL:
            return events
        part = ReasoningText(text="") if item.kind is OutputKind.THOUGHT else OutputText(text="")
        return events + self._event(ContentPartEvent, type="response.content_part.added", **place, part=part)

    def _grown(self, step: ItemGrew) -> bytes:
        if step.logprobs:
            item_id = output_item(step.item, self._generation).id
            place = {"item_id": item_id, "output_index": step.item.index}
            return self._event(TextDeltaEvent, **place, delta=step.text, logprobs=step.logprobs)
        number = self._next
        self._next += 1
        if number <= self._after:
            return b""
        before, between, after = self._templates[step.item.kind]
        return before + b"%d" % number + between + json.dumps(step.text).encode("ascii") + after

    def _done(self, index: int, rendered: OutputItem) -> bytes:
        place = {"item_id": rendered.id, "output_index": index}
        if isinstance(rendered, FunctionCallItem):
            events = self._event(ArgumentsDoneEvent, **place, name=rendered.name, arguments=rendered.arguments)
        elif isinstance(rendered, ReasoningItem):
            part = rendered.content[0]
            events = self._event(ReasoningDoneEvent, **place, text=part.text)
            events += self._event(ContentPartEvent, type="response.content_part.done", **place, part=part)
        else:
            message_part, events = rendered.content[0], b""
            for number, annotation in enumerate(message_part.annotations):
                events += self._event(TextAnnotationEvent, **place, annotation_index=number, annotation=annotation)
            events += self._event(TextDoneEvent, **place, text=message_part.text, logprobs=message_part.logprobs)
            events += self._event(ContentPartEvent, type="response.content_part.done", **place, part=message_part)
        return events + self._event(
            OutputItemEvent, type="response.output_item.done", output_index=index, item=rendered
        )

    def _template(self, kind: OutputKind, place: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
        event = _DELTAS[kind](sequence_number=_NUMBER, **place, delta=_MARK)
        before, _, rest = _framed(event.type, as_json(event)).partition(b"%d" % _NUMBER)
        between, _, after = rest.partition(json.dumps(_MARK).encode("ascii"))
        return before, between, after

    def _state(self, kind: str, response: ResponseAnswer) -> bytes:
        return self._event(ResponseStateEvent, type=kind, response=response)

    def _event(self, kind: type[Struct], **fields: Any) -> bytes:  # noqa: ANN401  those of the kind
        number = self._next
        self._next += 1
        if number <= self._after:
            return b""
        event = as_json(kind(sequence_number=number, **fields))
        return _framed(event["type"], event)


def _framed(kind: str, event: dict[str, Any]) -> bytes:
    # Escaped to ASCII: many clients split at U+2028 and U+0085 too, which JSON leaves as they are.
    data = json.dumps(event, ensure_ascii=True, allow_nan=False)
    return f"event: {kind}\ndata: {data}\n\n".encode("ascii")

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
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseAnswer,
    ResponseStatus,
)
from chat.schemas.responses.events import (
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
from chat.schemas.responses.identifiers import message_item_id, reasoning_item_id
from chat.schemas.responses.output import OutputSoFar
from chat.schemas.responses.rendering import (
    ended_response,
    has_message,
    is_background,
    reasoning_item,
    started_response,
)
from chat.streaming.events import WireLine
from inference.config.tokenizer import get_tokenizer
from inference.models import Generation

NOTHING_SENT = -1
_FINAL_EVENTS: dict[ResponseStatus, str] = {"completed": "response.completed", "failed": "response.failed"}
# Characters that no JSON text holds unescaped: they mark the places of the number and the text in a rendered event.
_MARK, _NUMBER = "\x00", -77


class ResponseEventWriter:
    """Renders the events after number ``after``."""

    def __init__(self, generation: Generation, *, after: int = NOTHING_SENT) -> None:
        self._generation = generation
        self._item_id = message_item_id(generation.pk)
        self._after = after
        self._next = 0
        self._output = OutputSoFar()
        self._delta = (b"", b"", b"")  # bytes before, between and after number and text of a plain delta

    def started(self) -> bytes:
        created: ResponseStatus = "queued" if is_background(self._generation) else "in_progress"
        events = self._state("response.created", started_response(self._generation, created))
        if created == "queued":
            events += self._state("response.queued", started_response(self._generation, created))
        return events + self._state("response.in_progress", started_response(self._generation, "in_progress"))

    def token(self, line: WireLine) -> bytes:
        if "logprobs" in line:
            self._output.wait(token_logprob(line["logprobs"], get_tokenizer()))
        events = self._thought(line["thought"]) if line.get("thought") else b""
        return events + self._text(line["token"]) if line["token"] else events

    def ended(self, generation: Generation, last: WireLine) -> bytes:
        """Return the rest of the events; ``generation`` is the row at its end, ``last`` the final line."""
        events = self.token(last)
        response = ended_response(generation, last, self._output)
        if self._output.is_thinking:
            events += self._thought_done(reasoning_item(generation, self._output.thoughts[-1], is_open=True))
        if has_message(generation) and self._output.message_index is None:
            events += self._message_added()
        for item in response.output:
            events += self._message_done(item) if isinstance(item, OutputMessage) else b""
        return events + self._state(_FINAL_EVENTS.get(response.status, "response.incomplete"), response)

    def broken(self, error: ChatError) -> bytes:
        """Return the event of a stream that cannot go on. It takes no number: resuming goes on behind the last one."""
        body = OpenAIError.of(error)
        number = max(self._after, self._next - 1, 0)
        event = StreamErrorEvent(sequence_number=number, code=body.code, message=body.message, param=body.param)
        return _framed(event.type, as_json(event))

    def _thought(self, piece: str) -> bytes:
        events = b"" if self._output.is_thinking else self._thought_added()
        self._output.think(piece)
        thought = self._output.thoughts[-1]
        item_id = reasoning_item_id(self._generation.pk, thought.index)
        return events + self._event(ReasoningDeltaEvent, item_id=item_id, output_index=thought.index, delta=piece)

    def _thought_added(self) -> bytes:
        thought = self._output.begin_thought()
        item_id = reasoning_item_id(self._generation.pk, thought.index)
        item = ReasoningItem(id=item_id, status="in_progress", content=[])
        return self._added(item, thought.index, ReasoningText(text=""))

    def _thought_done(self, item: ReasoningItem) -> bytes:
        self._output.is_thinking = False
        index, part = self._output.thoughts[-1].index, item.content[0]
        events = self._event(ReasoningDoneEvent, item_id=item.id, output_index=index, text=part.text)
        return events + self._done(item, index, part)

    def _text(self, text: str) -> bytes:
        events = b""
        if self._output.is_thinking:
            events += self._thought_done(reasoning_item(self._generation, self._output.thoughts[-1]))
        if self._output.message_index is None:
            events += self._message_added()
        if logprobs := self._output.take_logprobs():
            return events + self._event(TextDeltaEvent, **self._place, delta=text, logprobs=logprobs)
        number = self._next
        self._next += 1
        if number <= self._after:
            return events
        before, between, after = self._delta
        return events + before + b"%d" % number + between + json.dumps(text).encode("ascii") + after

    def _message_added(self) -> bytes:
        index = self._output.begin_message()
        self._delta = self._delta_template()
        return self._added(
            OutputMessage(id=self._item_id, status="in_progress", content=[]), index, OutputText(text="")
        )

    def _message_done(self, item: OutputMessage) -> bytes:
        part, events = item.content[0], b""
        for number, annotation in enumerate(part.annotations):
            events += self._event(TextAnnotationEvent, **self._place, annotation_index=number, annotation=annotation)
        events += self._event(TextDoneEvent, **self._place, text=part.text, logprobs=part.logprobs)
        return events + self._done(item, self._place["output_index"], part)

    def _added(self, item: OutputItem, index: int, part: OutputText | ReasoningText) -> bytes:
        events = self._event(OutputItemEvent, type="response.output_item.added", output_index=index, item=item)
        kind = "response.content_part.added"
        return events + self._event(ContentPartEvent, type=kind, item_id=item.id, output_index=index, part=part)

    def _done(self, item: OutputItem, index: int, part: OutputText | ReasoningText) -> bytes:
        kind = "response.content_part.done"
        events = self._event(ContentPartEvent, type=kind, item_id=item.id, output_index=index, part=part)
        return events + self._event(OutputItemEvent, type="response.output_item.done", output_index=index, item=item)

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": self._output.message_index or 0}

    def _delta_template(self) -> tuple[bytes, bytes, bytes]:
        """Thousands of deltas follow each other, which differ by number and text."""
        event = TextDeltaEvent(sequence_number=_NUMBER, **self._place, delta=_MARK)
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

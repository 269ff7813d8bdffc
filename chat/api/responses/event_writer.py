"""The events of one response as server-sent events.

Events and their numbers are a pure function of the row and its tokens: a stream that is resumed, from the token log or
from the row, makes the same events again and leaves out those that the client has. Log-probabilities are the exception:
the row does not keep them.
"""

import json
from typing import Any

from msgspec import Struct

from chat.errors import ChatError
from chat.schemas.answer_types import as_json
from chat.schemas.openai.chat_answers import TokenLogprob
from chat.schemas.openai.errors import OpenAIError
from chat.schemas.openai.rendering import token_logprob
from chat.schemas.responses.answers import OutputMessage, OutputText, ResponseAnswer, ResponseStatus
from chat.schemas.responses.events import (
    ContentPartEvent,
    OutputItemEvent,
    ResponseStateEvent,
    StreamErrorEvent,
    TextAnnotationEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from chat.schemas.responses.identifiers import message_item_id
from chat.schemas.responses.rendering import ended_response, is_background, started_response
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
        self._is_open = False
        self._logprobs: list[TokenLogprob] = []
        self._n_logprobs_sent = 0
        self._delta = self._delta_template()

    def started(self) -> bytes:
        created: ResponseStatus = "queued" if is_background(self._generation) else "in_progress"
        events = self._state("response.created", started_response(self._generation, created))
        if created == "queued":
            events += self._state("response.queued", started_response(self._generation, created))
        return events + self._state("response.in_progress", started_response(self._generation, "in_progress"))

    def token(self, line: WireLine) -> bytes:
        if "logprobs" in line:
            self._logprobs.append(token_logprob(line["logprobs"], get_tokenizer()))
        return self._text(line["token"]) if line["token"] else b""

    def ended(self, generation: Generation, last: WireLine) -> bytes:
        """Return the rest of the events; ``generation`` is the row at its end, ``last`` the final line."""
        events = self._text(last["token"]) if last["token"] else b""
        response = ended_response(generation, last, self._logprobs)
        for item in response.output:
            events += self._item_done(item)
        return events + self._state(_FINAL_EVENTS.get(response.status, "response.incomplete"), response)

    def broken(self, error: ChatError) -> bytes:
        """Return the event of a stream that cannot go on. It takes no number: resuming goes on behind the last one."""
        body = OpenAIError.of(error)
        number = max(self._after, self._next - 1, 0)
        event = StreamErrorEvent(sequence_number=number, code=body.code, message=body.message, param=body.param)
        return _framed(event.type, as_json(event))

    def _item_done(self, item: OutputMessage) -> bytes:
        part = item.content[0]
        events = b"" if self._is_open else self._opened()
        for index, annotation in enumerate(part.annotations):
            events += self._event(TextAnnotationEvent, item_id=item.id, annotation_index=index, annotation=annotation)
        events += self._event(TextDoneEvent, item_id=item.id, text=part.text, logprobs=part.logprobs)
        events += self._event(ContentPartEvent, type="response.content_part.done", item_id=item.id, part=part)
        return events + self._event(OutputItemEvent, type="response.output_item.done", item=item)

    def _opened(self) -> bytes:
        self._is_open = True
        item = OutputMessage(id=self._item_id, status="in_progress", content=[])
        part = OutputText(text="")
        return self._event(OutputItemEvent, type="response.output_item.added", item=item) + self._event(
            ContentPartEvent, type="response.content_part.added", item_id=self._item_id, part=part
        )

    def _text(self, text: str) -> bytes:
        events = b"" if self._is_open else self._opened()
        unsent, self._n_logprobs_sent = self._logprobs[self._n_logprobs_sent :], len(self._logprobs)
        if unsent:
            return events + self._event(TextDeltaEvent, item_id=self._item_id, delta=text, logprobs=unsent)
        self._next += 1
        if self._next - 1 <= self._after:
            return events
        before, between, after = self._delta
        return events + before + b"%d" % (self._next - 1) + between + json.dumps(text).encode("ascii") + after

    def _delta_template(self) -> tuple[bytes, bytes, bytes]:
        """Thousands of deltas follow each other, which differ by number and text."""
        event = TextDeltaEvent(sequence_number=_NUMBER, item_id=self._item_id, delta=_MARK)
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

"""The chunks of a streamed completion of raw prompts."""

import json
import time
from typing import Any

import msgspec
from msgspec import UNSET

from chat.api.openai.choices import AcceptedCall
from chat.api.openai.logprob_queue import LogprobQueue
from chat.api.openai.streams import data_event, is_waiting
from chat.schemas.answer_types import as_json
from chat.schemas.openai.completion_answers import CharacterCounter, TextChoice, TextCompletion, TextLogprobs
from chat.schemas.openai.rendering import finish_reason, timings_of, token_logprob, usage_of
from chat.schemas.stream_types import StreamStatus
from chat.streaming.events import WireLine

_MARK = "\x00"  # the place of a token's text in a rendered chunk


class CompletionChunkWriter:
    """Renders chunks. ``echoed`` holds for each choice the text of its prompt, if it is to be repeated."""

    def __init__(self, accepted: AcceptedCall, echoed: list[str]) -> None:
        self._accepted = accepted
        self._echoed = echoed
        self._began_at = time.monotonic()
        self._queues = [LogprobQueue() for _ in accepted.turns]
        self._counters = [CharacterCounter() for _ in accepted.turns]
        self._common: dict[str, Any] = {
            "id": f"cmpl-{accepted.id.hex}",
            "created": accepted.created,
            "model": accepted.model,
            "system_fingerprint": accepted.system_fingerprint,
            "usage": None if accepted.call.has_usage_chunk else UNSET,
        }
        self._templates = [self._template(number) for number in range(len(accepted.turns))]

    def started(self, number: int, line: WireLine) -> bytes:
        return self._text(number, self._echoed[number]) if self._echoed[number] else b""

    def token(self, number: int, line: WireLine) -> bytes:
        logprobs = self._logprobs(number, line)
        if logprobs is None:
            return self._text(number, line["token"]) if line["token"] else b""
        return self._event([TextChoice(index=number, text=line["token"], logprobs=logprobs)])

    def status(self, number: int, line: WireLine) -> bytes:
        if not is_waiting(line, self._began_at):
            return b""
        status = msgspec.convert(line["status"], StreamStatus)
        return self._event([TextChoice(index=number, text="")], x_status=status)

    def ended(self, number: int, line: WireLine) -> bytes:
        logprobs = self._logprobs(number, line)
        choice = TextChoice(index=number, text=line["token"], logprobs=logprobs, finish_reason=finish_reason(line))
        return self._event([choice], timings=timings_of(line))

    def _logprobs(self, number: int, line: WireLine) -> TextLogprobs | None:
        tokenizer = self._accepted.tokenizer
        tokens = [token_logprob(logprobs, tokenizer) for logprobs in self._queues[number].push(line)]
        return TextLogprobs.of(tokens, self._counters[number]) if tokens else None

    def usage(self, lasts: list[WireLine]) -> bytes:
        usage = usage_of(lasts, n_prompts=self._accepted.n_prompts)
        return self._event([], usage=usage, timings=timings_of(lasts[0]))

    def _text(self, number: int, text: str) -> bytes:
        before, after = self._templates[number]
        return before + json.dumps(text).encode("ascii") + after

    def _template(self, number: int) -> tuple[bytes, bytes]:
        before, _, after = self._event([TextChoice(index=number, text=_MARK)]).partition(json.dumps(_MARK).encode())
        return before, after

    def _event(self, choices: list[TextChoice], **more: Any) -> bytes:  # noqa: ANN401  fields of the chunk
        return data_event(as_json(TextCompletion(choices=choices, **self._common | more)))

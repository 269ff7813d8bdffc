"""POST /v1/chat/completions: a chat turn in OpenAI's form."""

from functools import partial

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from msgspec import UNSET

from chat.access.callers import Caller
from chat.api.body_parsing import read_object
from chat.api.json_response import json_response
from chat.api.openai.chat_chunks import ChatChunkWriter
from chat.api.openai.choices import AcceptedCall, Choice, accepted_turns, check_key, whole_choices
from chat.api.openai.streams import chunk_stream
from chat.api.turn_requests import AcceptedTurn, for_callers, has_long_body, idempotency_key, read_in_thread
from chat.schemas.openai.chat_answers import AnswerMessage, ChatChoice, ChatCompletionAnswer, ChoiceLogprobs
from chat.schemas.openai.chat_bodies import CompletionCall, chat_completion_request
from chat.schemas.openai.rendering import annotations_of, finish_reason, timings_of, token_logprob, usage_of
from chat.schemas.openai.tool_answers import tool_calls_of
from chat.schemas.requests import ChatRequest
from chat.services import turns
from chat.services.served_models import chat_model, require_model
from chat.streaming.admission import in_arrival_order
from chat.streaming.events import start, stops_when_left
from chat.tool_calling.call_parser import ParsedAnswer, parse_answer
from inference.config.tokenizer import get_tokenizer


@for_callers("POST", any_key=True)
async def chat_completions(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    accepted, metadata = await _accept(request, caller)
    if accepted.call.is_stream:
        return chunk_stream(accepted, caller, ChatChunkWriter(accepted, metadata))
    choices = await whole_choices(accepted, caller)
    return json_response(_answer(accepted, choices, metadata))


async def _accept(request: HttpRequest, caller: Caller) -> tuple[AcceptedCall, dict[str, str]]:
    is_long = has_long_body(request)
    async with in_arrival_order(is_long=is_long):
        call, body, model = await read_in_thread(request, _read)
        check_key(request, body.n)
        key = idempotency_key(request)
        # A stream of this API cannot be resumed: it ends with its reader, with a key, too.
        stops = call.is_stream or stops_when_left(body.priority, key)
        begin = partial(turns.start_turn, caller=caller, request=body, idempotency_key=key, request_digest=body.digest)
        first = AcceptedTurn(await start(begin, caller=caller, stops=stops, is_long=is_long), stops)
    accepted = AcceptedCall(call=call, turns=accepted_turns(first), model=model, tokenizer=get_tokenizer())
    return accepted, dict(body.metadata)


def _read(request: HttpRequest) -> tuple[CompletionCall, ChatRequest, str]:
    call, body = chat_completion_request(read_object(request))
    # In the same thread: looking up the model may read its file.
    return call, body, require_model(call.model, chat_model())


def _answer(accepted: AcceptedCall, choices: list[Choice], metadata: dict[str, str]) -> ChatCompletionAnswer:
    first = choices[0].last
    return ChatCompletionAnswer(
        id=f"chatcmpl-{accepted.id.hex}",
        created=accepted.created,
        model=accepted.model,
        system_fingerprint=accepted.system_fingerprint,
        choices=[_choice(accepted, number, choice) for number, choice in enumerate(choices)],
        usage=usage_of([choice.last for choice in choices]),
        metadata=metadata or UNSET,
        timings=timings_of(first),
        conversation_id=first["conversation_id"],
        message_id=first["message_id"],
        rag_error=first.get("rag_error", UNSET),
    )


def _choice(accepted: AcceptedCall, number: int, choice: Choice) -> ChatChoice:
    tokens = [token_logprob(logprobs, accepted.tokenizer) for logprobs in choice.logprobs]
    # Without tools an answer that looks like a call is text.
    parsed = parse_answer(choice.text) if accepted.call.calls_tools else ParsedAnswer(choice.text, ())
    calls = tool_calls_of(parsed, accepted.turns[number].turn.generation_id)
    return ChatChoice(
        index=number,
        message=AnswerMessage(
            # Null for an answer of calls alone, as OpenAI has it.
            content=None if calls and not parsed.text else parsed.text,
            tool_calls=calls or UNSET,
            reasoning_content=choice.thought or UNSET,
            annotations=annotations_of(parsed.text, choice.last),
        ),
        logprobs=ChoiceLogprobs(content=tokens) if tokens else None,
        finish_reason=finish_reason(choice.last, has_calls=bool(calls)),
    )

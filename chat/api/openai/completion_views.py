"""POST /v1/completions: raw prompts without a template."""

from functools import partial

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from chat.access.callers import Caller
from chat.api.body_parsing import read_object
from chat.api.json_response import json_response
from chat.api.openai.choices import AcceptedCall, Choice, accepted_turns, check_key, whole_choices
from chat.api.openai.completion_chunks import CompletionChunkWriter
from chat.api.openai.streams import chunk_stream
from chat.api.turn_requests import AcceptedTurn, for_callers, idempotency_key, read_in_thread
from chat.schemas.openai.chat_bodies import CompletionCall
from chat.schemas.openai.completion_answers import CharacterCounter, TextChoice, TextCompletion, TextLogprobs
from chat.schemas.openai.completion_bodies import openai_completion_request
from chat.schemas.openai.rendering import finish_reason, timings_of, token_logprob, usage_of
from chat.schemas.requests import CompletionRequest
from chat.services import turns
from chat.services.served_models import chat_model, require_model
from chat.streaming.admission import in_arrival_order
from chat.streaming.events import start, stops_when_left
from inference.config.tokenizer import get_tokenizer


@for_callers("POST", any_key=True)
async def completions(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    accepted, echoed = await _accept(request, caller)
    if accepted.call.is_stream:
        return chunk_stream(accepted, caller, CompletionChunkWriter(accepted, echoed))
    choices = await whole_choices(accepted, caller)
    return json_response(_answer(accepted, choices, echoed))


@in_arrival_order()
async def _accept(request: HttpRequest, caller: Caller) -> tuple[AcceptedCall, list[str]]:
    call, body, echo, model = await read_in_thread(request, _read)
    prompts = [body.prompt, *body.further_prompts]
    check_key(request, len(prompts) * body.n)
    key = idempotency_key(request)
    stops = call.is_stream or stops_when_left(body.priority, key)
    begin = partial(
        turns.start_completion, caller=caller, request=body, idempotency_key=key, request_digest=body.digest
    )
    first = AcceptedTurn(await start(begin, caller=caller, stops=stops), stops)
    tokenizer = get_tokenizer()
    accepted = AcceptedCall(
        call=call, turns=accepted_turns(first), model=model, tokenizer=tokenizer, n_prompts=len(prompts)
    )
    # Token ids are echoed as text, since choices have no other form.
    texts = [prompt if isinstance(prompt, str) else tokenizer.decode(list(prompt)) for prompt in prompts if echo]
    # The choices of one prompt come one after the other.
    echoed = [text for text in texts for _ in range(body.n)]
    return accepted, echoed or [""] * len(accepted.turns)


def _read(request: HttpRequest) -> tuple[CompletionCall, CompletionRequest, bool, str]:
    call, body, echo = openai_completion_request(read_object(request))
    return call, body, echo, require_model(call.model, chat_model())


def _answer(accepted: AcceptedCall, choices: list[Choice], echoed: list[str]) -> TextCompletion:
    lasts = [choice.last for choice in choices]
    return TextCompletion(
        id=f"cmpl-{accepted.id.hex}",
        created=accepted.created,
        model=accepted.model,
        system_fingerprint=accepted.system_fingerprint,
        choices=[_choice(accepted, number, choice, echoed[number]) for number, choice in enumerate(choices)],
        usage=usage_of(lasts, n_prompts=accepted.n_prompts),
        timings=timings_of(lasts[0]),
    )


def _choice(accepted: AcceptedCall, number: int, choice: Choice, echoed: str) -> TextChoice:
    tokens = [token_logprob(logprobs, accepted.tokenizer) for logprobs in choice.logprobs]
    return TextChoice(
        index=number,
        text=echoed + choice.text,
        logprobs=TextLogprobs.of(tokens, CharacterCounter()) if tokens else None,
        finish_reason=finish_reason(choice.last),
    )

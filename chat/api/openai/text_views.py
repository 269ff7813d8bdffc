"""POST /v1/embeddings, and llama-server's /tokenize, /detokenize and /apply-template."""

import base64
import functools
from collections.abc import Callable
from dataclasses import replace

import msgspec
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from chat.access.callers import Caller
from chat.api.body_parsing import read_object
from chat.api.turn_requests import View, for_callers, has_long_body, read_in_thread
from chat.schemas.decoding import decode
from chat.schemas.openai.chat_bodies import chat_completion_request
from chat.schemas.openai.text_tools import (
    DetokenizeAnswer,
    DetokenizeBody,
    EmbeddingAnswer,
    EmbeddingBody,
    EmbeddingItem,
    EmbeddingUsage,
    TemplateAnswer,
    TokenizeAnswer,
    TokenizeBody,
    TokenPiece,
)
from chat.services.embeddings import embed_texts
from chat.services.prompt_texts import prompt_text, spelled, tokens_of
from chat.services.served_models import chat_model, embedding_model, require_model
from chat.streaming.background import in_long_thread

TextView = Callable[[HttpRequest, Caller], msgspec.Struct]


def _answered_in_thread(view: TextView) -> View[[]]:
    """Make a view of a function that computes: tokenizer, embedding model and the JSON of a long answer would block the
    event loop."""

    @for_callers("POST", any_key=True)
    @functools.wraps(view)
    async def threaded(request: HttpRequest, caller: Caller) -> HttpResponseBase:
        # The embedding model has threads of its own, behind which the tokenizer is not to wait.
        is_long = view is not _embeddings and has_long_body(request)

        def encoded(request: HttpRequest) -> bytes:
            return msgspec.json.encode(view(request, caller))

        answer = await (in_long_thread(encoded, request) if is_long else read_in_thread(request, encoded))
        return HttpResponse(answer, content_type="application/json")

    return threaded


def _embeddings(request: HttpRequest, caller: Caller) -> EmbeddingAnswer:
    body = decode(EmbeddingBody, read_object(request))
    model = require_model(body.model, embedding_model())
    vectors, n_tokens = embed_texts(body.texts, dimensions=body.dimensions)
    is_base64 = body.encoding_format == "base64"
    return EmbeddingAnswer(
        data=[
            EmbeddingItem(
                index=index,
                embedding=base64.b64encode(vector.tobytes()).decode("ascii") if is_base64 else vector.tolist(),
            )
            for index, vector in enumerate(vectors)
        ],
        model=model,
        usage=EmbeddingUsage(prompt_tokens=n_tokens, total_tokens=n_tokens),
    )


embeddings = _answered_in_thread(_embeddings)


@_answered_in_thread
def tokenize(request: HttpRequest, caller: Caller) -> TokenizeAnswer:
    body = decode(TokenizeBody, read_object(request))
    tokens = tokens_of(body.content, special=body.parse_special is not False, with_bos=bool(body.add_special))
    if not body.with_pieces:
        return TokenizeAnswer(tokens=list(tokens))
    pieces = spelled(tokens)
    return TokenizeAnswer(tokens=[TokenPiece.of(token, piece) for token, piece in zip(tokens, pieces, strict=True)])


@_answered_in_thread
def detokenize(request: HttpRequest, caller: Caller) -> DetokenizeAnswer:
    body = decode(DetokenizeBody, read_object(request))
    return DetokenizeAnswer(content=b"".join(spelled(body.tokens)).decode("utf-8", "replace"))


@_answered_in_thread
def apply_template(request: HttpRequest, caller: Caller) -> TemplateAnswer:
    call, body = chat_completion_request(read_object(request))
    require_model(call.model, chat_model())
    return TemplateAnswer(prompt=prompt_text(replace(body, conversation_id=None), caller=caller))

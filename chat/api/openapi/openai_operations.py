"""Operations of OpenAI's and llama-server's interfaces."""

from chat.api.openapi.operation import KEY, TURN_ERRORS, Json, Operation
from chat.schemas.openai.chat_answers import ChatCompletionAnswer, ChatCompletionChunk
from chat.schemas.openai.chat_bodies import ChatCompletionBody
from chat.schemas.openai.errors import OpenAIErrorAnswer
from chat.schemas.openai.models import ModelAnswer, ModelListAnswer

CHUNKS = (ChatCompletionChunk,)


def _chunks_of(name: str) -> dict[str, Json]:
    """Return the media type of a stream of such chunks."""
    event = {
        "type": "object",
        "description": "One server-sent event; the last is `[DONE]`. Lines that begin with a colon are comments.",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": f"#/components/schemas/{name}"},
            }
        },
    }
    return {"text/event-stream": {"schema": event}}


OPENAI_OPERATIONS = (
    Operation(
        "openai-chat",
        "post",
        "/v1/chat/completions",
        "One answer in OpenAI's form, whole or with `stream`",
        "openai",
        ChatCompletionAnswer,
        ChatCompletionBody,
        error=OpenAIErrorAnswer,
        errors=TURN_ERRORS,
        parameters=(KEY,),
        media=_chunks_of("ChatCompletionChunk"),
    ),
    Operation(
        "openai-models",
        "get",
        "/v1/models",
        "The chat model",
        "openai",
        ModelListAnswer,
        error=OpenAIErrorAnswer,
        errors=(503,),
    ),
    Operation(
        "openai-model",
        "get",
        "/v1/models/{name}",
        "One model",
        "openai",
        ModelAnswer,
        error=OpenAIErrorAnswer,
        errors=(404, 503),
    ),
)

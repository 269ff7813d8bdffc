"""Operations of OpenAI's and llama-server's interfaces."""

from chat.api.openapi.operation import KEY, TURN_ERRORS, Json, Operation, Type, event_stream
from chat.schemas.openai.chat_answers import ChatCompletionAnswer, ChatCompletionChunk
from chat.schemas.openai.chat_bodies import ChatCompletionBody
from chat.schemas.openai.completion_answers import TextCompletion
from chat.schemas.openai.completion_bodies import OpenAICompletionBody
from chat.schemas.openai.errors import OpenAIErrorAnswer
from chat.schemas.openai.models import ModelAnswer, ModelListAnswer
from chat.schemas.openai.text_tools import (
    DetokenizeAnswer,
    DetokenizeBody,
    EmbeddingAnswer,
    EmbeddingBody,
    TemplateAnswer,
    TokenizeAnswer,
    TokenizeBody,
)

CHUNKS = (ChatCompletionChunk,)


def _chunks_of(kind: Type) -> dict[str, Json]:
    """Return the media type of a stream of such chunks, which an error may end."""
    description = "One server-sent event; the last is `[DONE]`. Lines that begin with a colon are comments."
    return event_stream((kind, OpenAIErrorAnswer), description)


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
        media=_chunks_of(ChatCompletionChunk),
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
    Operation(
        "openai-completions",
        "post",
        "/v1/completions",
        "Completion of raw prompts in OpenAI's form",
        "openai",
        TextCompletion,
        OpenAICompletionBody,
        error=OpenAIErrorAnswer,
        errors=TURN_ERRORS,
        parameters=(KEY,),
        media=_chunks_of(TextCompletion),
    ),
    Operation(
        "openai-embeddings",
        "post",
        "/v1/embeddings",
        "Vectors of texts, by the model that the memories are searched with",
        "openai",
        EmbeddingAnswer,
        EmbeddingBody,
        error=OpenAIErrorAnswer,
        errors=(404, 503),
    ),
    Operation(
        "tokenize",
        "post",
        "/tokenize",
        "Tokens of a text, as llama-server gives them",
        "openai",
        TokenizeAnswer,
        TokenizeBody,
        error=OpenAIErrorAnswer,
        errors=(503,),
    ),
    Operation(
        "detokenize",
        "post",
        "/detokenize",
        "Text of tokens",
        "openai",
        DetokenizeAnswer,
        DetokenizeBody,
        error=OpenAIErrorAnswer,
        errors=(503,),
    ),
    Operation(
        "apply-template",
        "post",
        "/apply-template",
        "The prompt of a dialogue",
        "openai",
        TemplateAnswer,
        ChatCompletionBody,
        error=OpenAIErrorAnswer,
        errors=(503,),
    ),
)

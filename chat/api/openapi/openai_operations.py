"""Operations of OpenAI's and llama-server's interfaces."""

from chat.api.openapi.operation import Operation
from chat.schemas.openai.errors import OpenAIErrorAnswer
from chat.schemas.openai.models import ModelAnswer, ModelListAnswer

OPENAI_OPERATIONS = (
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

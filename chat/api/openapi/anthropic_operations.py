"""Operations of Anthropic's Messages."""

from chat.api.openapi.operation import KEY, TURN_ERRORS, Operation, named_event_stream
from chat.schemas.anthropic.answers import MESSAGE_EVENTS, MessageAnswerBody, TokenCountAnswer
from chat.schemas.anthropic.bodies import CountTokensBody, MessagesBody
from chat.schemas.anthropic.errors import AnthropicErrorAnswer

_STREAM = named_event_stream((*MESSAGE_EVENTS, AnthropicErrorAnswer))

ANTHROPIC_OPERATIONS = (
    Operation(
        "anthropic-messages",
        "post",
        "/v1/messages",
        "One answer in Anthropic's form, whole or with `stream`",
        "anthropic",
        MessageAnswerBody,
        MessagesBody,
        error=AnthropicErrorAnswer,
        errors=TURN_ERRORS,
        parameters=(KEY,),
        media=_STREAM,
    ),
    Operation(
        "anthropic-count-tokens",
        "post",
        "/v1/messages/count_tokens",
        "Tokens of a dialogue as the model would read it",
        "anthropic",
        TokenCountAnswer,
        CountTokensBody,
        error=AnthropicErrorAnswer,
        errors=(404, 503),
    ),
)

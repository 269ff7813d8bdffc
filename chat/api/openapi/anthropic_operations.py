"""Operations of Anthropic's Messages."""

from chat.api.openapi.operation import KEY, TURN_ERRORS, Json, Operation
from chat.schemas.anthropic.answers import MESSAGE_EVENTS, MessageAnswerBody, TokenCountAnswer
from chat.schemas.anthropic.bodies import CountTokensBody, MessagesBody
from chat.schemas.anthropic.errors import AnthropicErrorAnswer

EVENT_KINDS = (*MESSAGE_EVENTS, AnthropicErrorAnswer)
_STREAM: dict[str, Json] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One server-sent event; lines that begin with a colon are comments.",
            "required": ["event", "data"],
            "properties": {
                "event": {"type": "string", "description": "The event's `type`."},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in EVENT_KINDS]
                    },
                },
            },
        }
    }
}

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

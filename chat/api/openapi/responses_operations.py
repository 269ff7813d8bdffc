"""Operations of OpenAI's Responses."""

from chat.api.openapi.operation import KEY, TURN_ERRORS, Json, Operation, Parameter, named_event_stream
from chat.schemas.openai.errors import OpenAIErrorAnswer
from chat.schemas.responses.answers import DeletedResponse, ItemList, ResponseAnswer
from chat.schemas.responses.bodies import ResponseBody
from chat.schemas.responses.events import EVENTS
from chat.schemas.stream_types import MAX_AFTER

_STREAM = named_event_stream(EVENTS)
_BOOLEAN: Json = {"type": "string", "enum": ["true", "false"]}

RESPONSES_OPERATIONS = (
    Operation(
        "openai-responses",
        "post",
        "/v1/responses",
        "One turn as a stored response: whole, with `stream`, or in the `background`",
        "openai",
        ResponseAnswer,
        ResponseBody,
        error=OpenAIErrorAnswer,
        errors=TURN_ERRORS,
        parameters=(KEY,),
        media=_STREAM,
    ),
    Operation(
        "openai-response",
        "get",
        "/v1/responses/{name}",
        "A response, or with `stream` its events from the first on or after one of them",
        "openai",
        ResponseAnswer,
        error=OpenAIErrorAnswer,
        errors=(404, 503),
        parameters=(
            Parameter("stream", "Its events.", _BOOLEAN),
            Parameter(
                "starting_after",
                "The number of the last event that the client has; needs `stream`.",
                {"type": "integer", "minimum": 0, "maximum": MAX_AFTER},
            ),
        ),
        media=_STREAM,
    ),
    Operation(
        "openai-response",
        "delete",
        "/v1/responses/{name}",
        "Delete an answer and its input from their conversation",
        "openai",
        DeletedResponse,
        error=OpenAIErrorAnswer,
        errors=(404, 409, 503),
    ),
    Operation(
        "openai-response-cancel",
        "post",
        "/v1/responses/{name}/cancel",
        "Stop a response; one that has ended is returned as it is",
        "openai",
        ResponseAnswer,
        error=OpenAIErrorAnswer,
        errors=(404, 503),
    ),
    Operation(
        "openai-response-items",
        "get",
        "/v1/responses/{name}/input_items",
        "The items that the answer follows, the last one first",
        "openai",
        ItemList,
        error=OpenAIErrorAnswer,
        errors=(404, 503),
        parameters=(
            Parameter("limit", "Items of a page.", {"type": "integer", "minimum": 1, "maximum": 100}),
            Parameter("order", "Of the items.", {"type": "string", "enum": ["asc", "desc"]}),
            Parameter("after", "The item before the page.", {"type": "string", "maxLength": 64}),
        ),
    ),
)

"""Errors of the services under the names that the fields of /v1/responses have."""

from collections.abc import Iterator
from contextlib import contextmanager

from chat.errors import ChatError

FIELDS = {
    "conversation_id": "conversation",
    "follows": "previous_response_id",
    "max_tokens": "max_output_tokens",
    "messages": "input",
}


@contextmanager
def openai_fields() -> Iterator[None]:
    try:
        yield
    except ChatError as error:
        if error.field in FIELDS:
            field = FIELDS[error.field]
            error.args = (error.message.replace(error.field, field, 1),)
            error.field = field
        raise

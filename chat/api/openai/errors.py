"""Errors on the paths of OpenAI's and llama-server's interfaces, in the form that their clients parse."""

import re

from django.http.response import HttpResponseBase

from chat.schemas.error_bodies import ErrorResponse
from chat.schemas.openai.errors import openai_error_response

# /models/list is a route of another service's clients.
_PATHS = re.compile(
    r"/(v1/.*|responses(/.*)?|chat/completions|completions|models(?!/list/?$)(/.*)?|embeddings"
    r"|tokenize|detokenize|apply-template)/?",
    re.DOTALL,  # an id in a path may have line breaks
)


def in_clients_form(path: str, response: HttpResponseBase) -> HttpResponseBase:
    """Return an error of one of these paths as OpenAI's object; any other response as it is."""
    if not isinstance(response, ErrorResponse) or not _PATHS.fullmatch(path):
        return response
    replacement = openai_error_response(response.error)
    if "Allow" in response.headers:
        replacement.headers["Allow"] = response.headers["Allow"]
    return replacement

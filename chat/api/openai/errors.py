"""Errors on the paths of OpenAI's, llama-server's and Anthropic's interfaces, in the form that their clients parse."""

import re

from django.http import JsonResponse
from django.http.response import HttpResponseBase

from chat.errors import ChatError
from chat.schemas.anthropic.errors import anthropic_error_response
from chat.schemas.error_bodies import ErrorResponse
from chat.schemas.openai.errors import openai_error_response
from inference.runtime import log_context

# /models/list is a route of another service's clients.
_PATHS = re.compile(
    r"/(v1/.*|responses(/.*)?|chat/completions|completions|models(?!/list/?$)(/.*)?|embeddings"
    r"|tokenize|detokenize|apply-template)/?",
    re.DOTALL,  # an id in a path may have line breaks
)
_ANTHROPIC = re.compile(r"/v1/messages(/.*)?")


def in_clients_form(path: str, response: HttpResponseBase) -> HttpResponseBase:
    """Return an error of one of these paths in its clients' form; any other response as it is."""
    if not isinstance(response, ErrorResponse) or not _PATHS.fullmatch(path):
        return response
    replacement = _rendered(path, response.error)
    if "Allow" in response.headers:
        replacement.headers["Allow"] = response.headers["Allow"]
    return replacement


def _rendered(path: str, error: ChatError) -> JsonResponse:
    if _ANTHROPIC.fullmatch(path):
        return anthropic_error_response(error, log_context.request_id())
    return openai_error_response(error)

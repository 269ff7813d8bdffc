"""A typed answer as a JSON response."""

from django.http import JsonResponse
from msgspec import Struct

from chat.schemas.answer_types import as_json


def json_response(answer: Struct, *, status: int = 200, headers: dict[str, str] | None = None) -> JsonResponse:
    return JsonResponse(as_json(answer), status=status, headers=headers)

"""REST over the caller's API keys: list, make, revoke. For users with a JWT or a session; a key makes no keys."""

from typing import Any

import msgspec
from django.contrib.auth.base_user import AbstractBaseUser
from rest_framework.request import Request
from rest_framework.response import Response

from chat.access.api_keys import DEFAULT_DAYS, DEFAULT_SCOPES, issue_key, revoke_key
from chat.api.account.users import user_of
from chat.api.drf import JsonApi
from chat.api.pagination import page
from chat.errors import NotFound
from chat.models import ApiKey
from chat.schemas.accounts.key_bodies import KeyBody, key_answer, new_key_answer
from chat.schemas.decoding import decode

MAX_ID_DIGITS = 18


class KeyListView(JsonApi):
    """/api/keys/"""

    def get(self, request: Request) -> Response:
        return page(request, ApiKey.objects.filter(user_id=user_of(request).pk), as_json)

    def post(self, request: Request) -> Response:
        user = user_of(request)
        body = decode(KeyBody, request.data)
        issued = issue_key(
            user,
            name=body.name,
            scopes=body.scopes or DEFAULT_SCOPES,
            lifetime_days=body.expires_in_days or DEFAULT_DAYS,
        )
        answer: dict[str, Any] = msgspec.to_builtins(new_key_answer(issued.row, issued.text))
        return Response(answer, status=201, headers={"Cache-Control": "no-store"})


class KeyDetailView(JsonApi):
    """/api/keys/{id}/"""

    def get(self, request: Request, pk: str) -> Response:
        return Response(as_json(_own_key(user_of(request), pk)))

    def delete(self, request: Request, pk: str) -> Response:
        """Revoke; the row remains for some time and is listed as revoked."""
        revoke_key(_own_key(user_of(request), pk))
        return Response(status=204)


def as_json(row: ApiKey) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(key_answer(row))
    return body


def _own_key(user: AbstractBaseUser, pk: str) -> ApiKey:
    is_id = pk.isascii() and pk.isdecimal() and len(pk) <= MAX_ID_DIGITS
    row = ApiKey.objects.filter(pk=int(pk), user_id=user.pk).first() if is_id else None
    if row is None:
        raise NotFound("there is no such API key")
    return row

"""The caller's account: an export of all that belongs to it, and its deletion. For users alone, with no API key."""

from django.contrib.auth import authenticate
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from chat.access import login_limit
from chat.api.account.users import user_of
from chat.api.drf import JsonApi
from chat.errors import Forbidden
from chat.schemas.accounts.account_bodies import AccountDeletionBody
from chat.schemas.decoding import decode
from chat.services.accounts.user_export import export_user
from chat.services.accounts.users import delete_user
from compat.drf_requests import django_request


class AccountExportView(JsonApi):
    """GET /api/account/export/"""

    def get(self, request: Request) -> HttpResponse:
        document = "".join(export_user(user_of(request)))
        headers = {"Content-Disposition": 'attachment; filename="account.json"', "Cache-Control": "no-store"}
        return HttpResponse(document, content_type="application/json", headers=headers)


class AccountView(JsonApi):
    """DELETE /api/account/: the body has the password, so that a stolen token deletes nothing."""

    def delete(self, request: Request) -> Response:
        user = user_of(request)
        body = decode(AccountDeletionBody, request.data)
        name = user.get_username()
        with login_limit.attempt(django_request(request), name):
            if authenticate(django_request(request), username=name, password=body.password) != user:
                raise Forbidden("the password is wrong", code="wrong_credentials")
        delete_user(user)
        return Response(status=204)

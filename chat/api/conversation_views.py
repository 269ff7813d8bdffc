"""REST over stored conversations: list, create, read, change, delete, messages, export. Only the caller's own."""

from typing import Any, cast

import msgspec
from django.http import HttpResponse
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSetMixin

from chat.access.callers import Caller
from chat.api.drf import JsonApi
from chat.api.pagination import page
from chat.errors import NotFound
from chat.models import Conversation
from chat.schemas import answers
from chat.schemas.conversation_bodies import ConversationAnswer, conversation_changes
from chat.schemas.decoding import invalid_field
from chat.schemas.identifiers import as_uuid
from chat.services import conversations

MAX_SEARCH_CHARS = 200


class ConversationViewSet(ViewSetMixin, JsonApi):
    """/api/conversations/"""

    lookup_value_regex = "[^/]+"

    def list(self, request: Request) -> Response:
        rows = conversations.conversations_of(caller_of(request))
        text = request.query_params.get("search", "")
        if len(text) > MAX_SEARCH_CHARS or "\0" in text:
            raise invalid_field("search", f"must have at most {MAX_SEARCH_CHARS} characters and no NUL")
        if request.query_params.get("versions", "all") not in ("all", "latest"):
            raise invalid_field("versions", 'must be "all" or "latest"')
        archived = request.query_params.get("archived", "all")
        if archived not in ("all", "true", "false"):
            raise invalid_field("archived", 'must be "true", "false" or "all"')
        if archived != "all":
            rows = rows.archived(archived == "true")
        if request.query_params.get("versions") == "latest":
            rows = rows.latest_versions()
        return page(request, rows.search(text) if text else rows, as_json)

    def create(self, request: Request) -> Response:
        changes = conversation_changes(request.data)
        created = conversations.create_conversation(caller=caller_of(request), **changes)
        return Response(as_json(created), status=201)

    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(as_json(self._get(request, pk)))

    def partial_update(self, request: Request, pk: str) -> Response:
        changes = conversation_changes(request.data)
        caller, conversation = caller_of(request), self._get(request, pk)
        changed = conversations.update_conversation(caller=caller, conversation_id=conversation.pk, **changes)
        return Response(as_json(changed))

    def destroy(self, request: Request, pk: str) -> Response:
        conversation = self._get(request, pk)
        conversations.delete_conversation(caller=caller_of(request), conversation_id=conversation.pk)
        return Response(status=204)

    @action(detail=True)
    def messages(self, request: Request, pk: str) -> Response:
        return page(request, self._get(request, pk).messages.in_order(), answers.message_body)

    @action(detail=True)
    def versions(self, request: Request, pk: str) -> Response:
        rows = conversations.versions_of(caller=caller_of(request), conversation_id=self._get(request, pk).pk)
        return page(request, rows, as_json)

    @action(detail=True)
    def summaries(self, request: Request, pk: str) -> Response:
        rows = conversations.summaries_of(caller=caller_of(request), conversation_id=self._get(request, pk).pk)
        return page(request, rows, answers.summary_body)

    @action(detail=True)
    def export(self, request: Request, pk: str) -> HttpResponse:
        conversation = self._get(request, pk)
        owned: dict[str, Any] = {"caller": caller_of(request), "conversation_id": conversation.pk}
        kind = request.query_params.get("format", "json")
        if kind == "json":
            return Response(conversations.export_conversation(**owned), headers=_as_file(conversation, "json"))
        if kind == "markdown":
            text = conversations.export_markdown(**owned)
            return HttpResponse(text, content_type="text/markdown; charset=utf-8", headers=_as_file(conversation, "md"))
        raise invalid_field("format", 'must be "json" or "markdown"')

    def _get(self, request: Request, pk: str) -> Conversation:
        conversation_id = as_uuid(pk)
        if conversation_id is None:
            raise NotFound("there is no such conversation")
        return conversations.get_conversation(caller=caller_of(request), conversation_id=conversation_id)


def caller_of(request: Request) -> Caller:
    return cast(Caller, request.auth)


def as_json(conversation: Conversation) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(ConversationAnswer.of(conversation))
    return body


def _as_file(conversation: Conversation, suffix: str) -> dict[str, str]:
    # The title is a person's text and stays out of the header.
    return {"Content-Disposition": f'attachment; filename="conversation-{conversation.pk}.{suffix}"'}

"""Admin views of one conversation (cancel, download), and the cancel action with its message to the operator."""

import json
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial

from django.contrib import messages
from django.contrib.admin.options import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_GET, require_POST

from chat.admin.common.formatting import counted
from chat.errors import ChatError
from chat.models import Conversation
from chat.querysets import MessageQuerySet
from chat.services import operations
from inference.runtime.threads import in_thread

Page = Callable[..., HttpResponse]


class ConversationPages:
    """Views below ``admin/chat/conversation/<id>/``, with the permissions of ``model_admin``."""

    def __init__(self, model_admin: "ModelAdmin[Conversation]") -> None:
        self.admin = model_admin

    def urls(self) -> list[URLPattern]:
        guarded = self.admin.admin_site.admin_view
        return [
            path("<uuid:pk>/cancel/", guarded(require_POST(self.cancel)), name="chat_conversation_cancel"),
            path("<uuid:pk>/export.json", guarded(require_GET(self.as_json)), name="chat_conversation_json"),
            path("<uuid:pk>/export.md", guarded(require_GET(self.as_markdown)), name="chat_conversation_markdown"),
        ]

    def cancel(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        conversation = self._visible(request, pk)
        if not request.user.has_perm("chat.change_conversation"):
            raise PermissionDenied
        if n_cancelled := cancel_answers(request, conversation.messages.all()):
            self.admin.log_change(request, conversation, f"Cancelled {counted(n_cancelled, 'answer')}.")
        return HttpResponseRedirect(reverse("admin:chat_conversation_change", args=[pk]))

    def as_json(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        conversation = self._visible(request, pk)
        body = operations.export_as_json(conversation)
        return _download(JsonResponse(body, json_dumps_params={"indent": 2, "ensure_ascii": False}), f"{pk}.json")

    def as_markdown(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        body = operations.export_as_markdown(self._visible(request, pk))
        return _download(HttpResponse(body, content_type="text/markdown; charset=utf-8"), f"{pk}.md")

    def _visible(self, request: HttpRequest, pk: uuid.UUID) -> Conversation:
        conversation = get_object_or_404(Conversation, pk=pk)
        if not self.admin.has_view_or_change_permission(request, conversation):
            raise PermissionDenied
        return conversation


def exported_lines(conversations: "QuerySet[Conversation]") -> StreamingHttpResponse:
    """Return a file with a line of JSON for each conversation, made while it is sent."""
    ids = list(conversations.values_list("pk", flat=True))

    def line_of(pk: uuid.UUID) -> str:
        conversation = Conversation.objects.filter(pk=pk).first()
        if conversation is None:  # deleted meanwhile
            return ""
        return json.dumps(operations.export_as_json(conversation), ensure_ascii=False) + "\n"

    async def lines() -> AsyncIterator[str]:
        for pk in ids:
            yield await in_thread(partial(line_of, pk))

    response = StreamingHttpResponse(lines(), content_type="application/x-ndjson; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="conversations.jsonl"'
    response["Cache-Control"] = "no-store"
    return response


def cancel_answers(request: HttpRequest, answers: MessageQuerySet) -> int:
    """Stop the unfinished answers, show the operator the outcome and return how many were stopped."""
    try:
        cancelled = operations.cancel_answers(answers)
    except ChatError as error:
        show_refusal(request, error)
        return 0
    if cancelled.n_cancelled:
        messages.success(request, f"{counted(cancelled.n_cancelled, 'answer')} cancelled.")
    else:
        messages.info(request, "There was no unfinished answer.")
    return cancelled.n_cancelled


def show_refusal(request: HttpRequest, error: ChatError) -> None:
    messages.error(request, f"Not done: {error.message}")


def _download(response: HttpResponse, name: str) -> HttpResponse:
    # Always a download: a browser must not render the content of a conversation.
    response["Content-Disposition"] = f'attachment; filename="conversation-{name}"'
    response["X-Content-Type-Options"] = "nosniff"
    return response

"""The action that deletes selected conversations: a page that says how many, and the deletion, of many in the
background."""

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from chat.admin.common.formatting import counted
from chat.models import Conversation, Message
from chat.services import operations
from chat.services.accounts.bulk_deletion import MOST_AT_ONCE, request_deletion

if TYPE_CHECKING:
    _ConversationAdmin = ModelAdmin[Conversation]
else:
    _ConversationAdmin = ModelAdmin  # takes no type arguments when it runs


def confirm_deletion(admin: _ConversationAdmin, request: HttpRequest, selected: QuerySet[Any]) -> HttpResponse:
    """Return the page that asks. It names the first conversations alone, whatever their number."""
    n_conversations = selected.count()
    conversations = selected.order_by().values("pk")
    context = {
        **admin.admin_site.each_context(request),
        "title": f"Delete {counted(n_conversations, 'conversation')}",
        "opts": admin.opts,
        "media": admin.media,
        "first": list(selected[:MOST_AT_ONCE]),
        "n_more": max(0, n_conversations - MOST_AT_ONCE),
        "n_messages": Message.objects.filter(conversation__in=conversations).count(),
        "selected_name": ACTION_CHECKBOX_NAME,
        "selected_ids": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "is_across": request.POST.get("select_across") == "1",
        "until": timezone.now().isoformat(),
    }
    return TemplateResponse(request, "admin/chat/conversation/delete_selected_confirmation.html", context)


def delete_confirmed(admin: _ConversationAdmin, request: HttpRequest, selected: QuerySet[Any]) -> HttpResponse | None:
    """Delete a few at once, many in the background. Raises ChatError."""
    # What has come or continued since the question was asked was no part of it.
    if until := parse_datetime(request.POST.get("until", "")):
        selected = selected.filter(updated_at__lte=until)
    n_conversations = selected.count()
    if n_conversations <= MOST_AT_ONCE:
        admin.log_deletions(request, selected)
        operations.delete_conversations(list(selected))
        messages.success(request, f"{counted(n_conversations, 'conversation')} deleted.")
        return None
    ids = list(selected.order_by("updated_at").values_list("pk", flat=True))
    row = request_deletion(conversation_ids=ids, requested_by=request.user.get_username())
    return HttpResponseRedirect(reverse("admin:chat_bulkdeletion_change", args=[row.pk]))

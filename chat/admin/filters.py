"""Filters of the admin's lists: by owner, and by properties of answers.

A filter on answers applies to messages, and to conversations that contain such a message.
"""

from collections.abc import Iterable
from typing import Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest

from chat.access.owners import owner_labels
from chat.models import Conversation, Message
from inference.engine.config import Device
from inference.models import ENDED, FinishReason, Status

# With many owners a complete list would be longer than the page.
OWNERS_OFFERED = 30

Choices = Iterable[tuple[str, str]]

# Conditions on messages; an unfinished answer may still cite a source.
CITES = ~Q(generation__labels=[]) & Q(generation__isnull=False)
CITES_NOTHING = Q(generation__labels=[], generation__status__in=ENDED)


class OwnerFilter(SimpleListFilter):
    """Offers the owners with the most conversations, and the selected one."""

    title = "owner"
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        # Not of the key, which the index of owners does not have.
        busiest = Conversation.objects.values("owner").annotate(n=Count("*")).order_by("-n", "owner")
        owners = [row["owner"] for row in busiest[:OWNERS_OFFERED]]
        chosen = self.value()
        if chosen and chosen not in owners:
            owners.append(chosen)
        return sorted(owner_labels(owners).items(), key=lambda item: item[1].lower())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(owner=self.value()) if self.value() else queryset


class AnswerFilter(SimpleListFilter):
    """Base of the filters on messages."""

    def condition(self, value: str) -> Q:
        """Return the condition that a message must meet."""
        raise NotImplementedError

    def is_rare(self, value: str) -> bool:
        """Return whether few messages meet the condition, which an index finds."""
        return False

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if queryset.model is Message:
            return queryset.filter(self.condition(value))
        if self.is_rare(value):
            # Few rows by an index, where EXISTS would look at the messages of each conversation in turn.
            return queryset.filter(pk__in=Message.objects.filter(self.condition(value)).values("conversation"))
        # EXISTS instead of a join, which would repeat a conversation with several such messages.
        return queryset.filter(Exists(Message.objects.filter(self.condition(value), conversation=OuterRef("pk"))))


class StatusFilter(AnswerFilter):
    title = "status of an answer"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        statuses = [(str(value), str(value)) for value in Status.values]
        return [("unfinished", "not ended yet"), *statuses, ("timeout", "timed out")]

    def condition(self, value: str) -> Q:
        if value == "unfinished":
            return Q(generation__status__in=[Status.PREPARING, Status.QUEUED, Status.RUNNING])
        # One that its deadline has stopped, not a client.
        is_late = Q(generation__error_code="timeout", generation__status__in=[Status.INTERRUPTED, Status.FAILED])
        return is_late if value == "timeout" else Q(generation__status=value)

    def is_rare(self, value: str) -> bool:
        return value != Status.COMPLETE


class FinishReasonFilter(AnswerFilter):
    title = "finish reason"
    parameter_name = "finish_reason"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        return [(str(value), str(value)) for value in FinishReason.values]

    def condition(self, value: str) -> Q:
        return Q(generation__finish_reason=value)


class DeviceFilter(AnswerFilter):
    title = "device"
    parameter_name = "device"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        # An answer of a simulated GPU counts as one of a GPU.
        return [(device.value, device.value.upper()) for device in (Device.CPU, Device.GPU)]

    def condition(self, value: str) -> Q:
        # SQLite has no "contains" for JSON, so the quoted name is searched in the text of the list.
        return Q(generation__devices__icontains=f'"{value}"')


class SourcesFilter(AnswerFilter):
    title = "sources"
    parameter_name = "sources"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        return [
            ("yes", "shown to the model"),
            ("cited", "labelled by the model"),
            ("uncited", "shown, none labelled"),
            ("empty", "searched, none found"),
            ("error", "search failed"),
        ]

    def condition(self, value: str) -> Q:
        with_sources = Q(retrieval__isnull=False) & ~Q(retrieval__sources=[])
        match value:
            case "yes":
                return with_sources
            case "cited":
                return with_sources & CITES
            case "uncited":
                return with_sources & CITES_NOTHING
            case "empty":
                return Q(retrieval__sources=[], retrieval__error="")
            case _:
                return Q(retrieval__isnull=False) & ~Q(retrieval__error="")


class RetrievalOutcomeFilter(SimpleListFilter):
    title = "outcome"
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        return [
            ("sources", "sources shown"),
            ("cited", "labelled by the model"),
            ("uncited", "shown, none labelled"),
            ("empty", "none found"),
            ("error", "failed"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        cites = Message.objects.filter(pk=OuterRef("message_id"))
        match self.value():
            case "sources":
                return queryset.exclude(sources=[])
            case "cited":
                return queryset.exclude(sources=[]).filter(Exists(cites.filter(CITES)))
            case "uncited":
                return queryset.exclude(sources=[]).filter(Exists(cites.filter(CITES_NOTHING)))
            case "empty":
                return queryset.filter(sources=[], error="")
            case "error":
                return queryset.exclude(error="")
        return queryset

"""The filters of the admin's lists: whose conversations, and in what way an answer in them was made.

A filter about answers works on a list of messages and, through "has such a message", on a list of conversations.
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

# A list of every owner would be longer than the page on an installation with many of them.
OWNERS_OFFERED = 30

Choices = Iterable[tuple[str, str]]

# Of messages; an answer that is still being made may yet cite something.
CITES = ~Q(generation__labels=[]) & Q(generation__isnull=False)
CITES_NOTHING = Q(generation__labels=[], generation__status__in=ENDED)


class OwnerFilter(SimpleListFilter):
    """The owners with the most conversations, and the one that is chosen even if it is not among them."""

    title = "owner"
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        busiest = Conversation.objects.values("owner").annotate(n=Count("pk")).order_by("-n", "owner")
        owners = [row["owner"] for row in busiest[:OWNERS_OFFERED]]
        chosen = self.value()
        if chosen and chosen not in owners:
            owners.append(chosen)
        return sorted(owner_labels(owners).items(), key=lambda item: item[1].lower())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(owner=self.value()) if self.value() else queryset


class AnswerFilter(SimpleListFilter):
    """Base of the filters that look at messages."""

    def condition(self, value: str) -> Q:
        """What a message has to be like."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if queryset.model is Message:
            return queryset.filter(self.condition(value))
        # Not a join: a conversation with ten such messages is still one row.
        return queryset.filter(Exists(Message.objects.filter(self.condition(value), conversation=OuterRef("pk"))))


class StatusFilter(AnswerFilter):
    title = "status of an answer"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        return [("unfinished", "not ended yet"), *[(str(value), str(value)) for value in Status.values]]

    def condition(self, value: str) -> Q:
        if value == "unfinished":
            return Q(generation__status__in=[Status.PREPARING, Status.QUEUED, Status.RUNNING])
        return Q(generation__status=value)


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
        return [(device.value, device.value.upper()) for device in Device]

    def condition(self, value: str) -> Q:
        # The devices are a list of objects; SQLite knows no "contains" for JSON, its text has the name in quotes.
        return Q(generation__devices__icontains=f'"{value}"')


class SourcesFilter(AnswerFilter):
    title = "sources"
    parameter_name = "sources"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        return [
            ("yes", "given to an answer"),
            ("cited", "cited by an answer"),
            ("uncited", "given, none cited"),
            ("empty", "searched, none found"),
            ("error", "search failed"),
        ]

    def condition(self, value: str) -> Q:
        given = Q(retrieval__isnull=False) & ~Q(retrieval__sources=[])
        match value:
            case "yes":
                return given
            case "cited":
                return given & CITES
            case "uncited":
                return given & CITES_NOTHING
            case "empty":
                return Q(retrieval__sources=[], retrieval__error="")
            case _:
                return Q(retrieval__isnull=False) & ~Q(retrieval__error="")


class RetrievalOutcomeFilter(SimpleListFilter):
    title = "outcome"
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Choices:
        return [
            ("sources", "sources given"),
            ("cited", "cited"),
            ("uncited", "given, none cited"),
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

"""What a request's body may hold: JSON text -> checked, typed request objects of ``chat.schemas.requests``.

Unknown fields are ignored, as existing clients send extra ones; null stands for a field that is left out. The
rules between stored things (does the conversation exist, does it fit) are the services'.
"""

import dataclasses
import uuid
from typing import Any, cast

from django.conf import settings
from rest_framework import serializers

from chat.enums import ChatRole, Strategy
from chat.errors import NotFound
from chat.rag.query import SourceFilters
from chat.rag.sources import ContextItem
from chat.schemas import fields
from chat.schemas.dates import IsoDate, first_moment, last_moment
from chat.schemas.field_paths import invalid_request
from chat.schemas.requests import ChatMessage, ChatRequest, CompletionRequest, RunOptions
from inference.models import Priority

MAX_MESSAGES = 10_000
MAX_CONTEXT_ITEMS = 200
MAX_TOP_K = 100
RANDOM_SEED = -1  # llama-server's word for "draw one"
PRIORITIES = {"interactive": Priority.INTERACTIVE, "batch": Priority.BATCH}
RUN_OPTIONS = tuple(option.name for option in dataclasses.fields(RunOptions))
FILTERS = ("speakers", "start_date", "end_date", "last_n_transcripts", "bias_emotions")


class Body(serializers.Serializer[Any]):
    """A JSON object; null is the same as nothing."""

    default_error_messages = {"invalid": "must be a JSON object"}

    def to_internal_value(self, data: object) -> dict[str, Any]:
        given = {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data
        return cast(dict[str, Any], super().to_internal_value(given))


class MessageBody(Body):
    role = fields.Choice(choices=[role.value for role in ChatRole])
    content = fields.Text(allow_blank=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        # An answer that was cut before its first token is part of histories; an empty question is a mistake.
        if attrs["role"] == ChatRole.USER and not attrs["content"]:
            raise serializers.ValidationError({"content": "must not be empty"})
        return attrs


class MessageList(serializers.ListSerializer[Any]):
    default_error_messages = {
        "not_a_list": "must be a list of messages",
        "empty": "must hold at least one message",
        "max_length": "at most {max_length} messages",
    }


class ContextField(serializers.Field[ContextItem, Any, Any, Any]):
    """A string, or an object with ``text`` and whatever else is known about it."""

    default_error_messages = {
        "invalid": 'must be a string or an object with "text"',
        "unstorable": "holds numbers or characters that cannot be stored, or is nested too deeply",
    }

    def to_internal_value(self, data: object) -> ContextItem:
        item = {"text": data} if isinstance(data, str) else data
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            self.fail("invalid")
        if not fields.is_storable(item):
            self.fail("unstorable")
        nested = item.get("metadata")
        metadata = {name: value for name, value in item.items() if name not in ("text", "metadata")}
        return ContextItem(text=item["text"], metadata=metadata | (nested if isinstance(nested, dict) else {}))

    def to_representation(self, value: ContextItem) -> object:
        return {"text": value.text, "metadata": value.metadata}


class FiltersBody(Body):
    """Which memories may be searched."""

    speakers = fields.TextList(max_length=100, max_chars=200)
    start_date = IsoDate(required=False, max_length=40)
    end_date = IsoDate(required=False, max_length=40)
    last_n_transcripts = fields.Integer(required=False, min_value=1, max_value=100_000)
    bias_emotions = fields.TextList(max_length=100, max_chars=100)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        start, end = first_moment(attrs.get("start_date")), last_moment(attrs.get("end_date"))
        if start and end and end < start:
            raise serializers.ValidationError({"end_date": "is before start_date"})
        return attrs


class RunOptionsBody(Body):
    """How to sample and schedule; names and meanings are llama-server's."""

    # The range of the number alone: ``chat.services.validation`` compares it with the context size in use.
    max_tokens = fields.Integer(required=False, min_value=1, max_value=2**31 - 1)
    temperature = fields.Number(required=False, min_value=0, max_value=100)
    top_p = fields.Number(required=False, min_value=0, max_value=1)
    top_k = fields.Integer(required=False, min_value=0, max_value=1_000_000)
    min_p = fields.Number(required=False, min_value=0, max_value=1)
    repeat_penalty = fields.Number(required=False, min_value=0.01, max_value=100)
    presence_penalty = fields.Number(required=False, min_value=-100, max_value=100)
    frequency_penalty = fields.Number(required=False, min_value=-100, max_value=100)
    logit_bias = fields.LogitBias(required=False)
    seed = fields.Integer(required=False, min_value=RANDOM_SEED, max_value=2**32 - 1)
    stop = fields.TextList(max_length=16, max_chars=256)
    ignore_eos = fields.Truth(required=False)
    cache_prompt = fields.Truth(required=False)
    session_id = fields.Text(required=False, allow_blank=True, max_length=128)
    priority = fields.Choice(required=False, choices=list(PRIORITIES))
    timeout_s = fields.Number(required=False, min_value=0.001)

    def validate_timeout_s(self, value: float) -> float:
        if value > settings.REQUEST_TIMEOUT_SECS:
            raise serializers.ValidationError(f"must be at most {settings.REQUEST_TIMEOUT_SECS:g}")
        return value


class ChatBody(RunOptionsBody, FiltersBody):
    messages = MessageList(child=MessageBody(), required=False, allow_empty=False, max_length=MAX_MESSAGES)
    message = fields.Text(required=False)
    conversation_id = fields.Identifier(required=False)
    replaces = fields.Identifier(required=False)
    context = serializers.ListField(  # type: ignore[assignment]
        child=ContextField(), required=False, max_length=MAX_CONTEXT_ITEMS
    )
    use_rag = fields.Truth(required=False)
    rag_top_k = fields.Integer(required=False, min_value=1, max_value=MAX_TOP_K)
    strategy = fields.Choice(required=False, choices=[strategy.value for strategy in Strategy])
    store = fields.Truth(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        messages = attrs.get("messages")
        if messages is None and "message" not in attrs and "replaces" not in attrs:
            raise serializers.ValidationError({"messages": "is required"})
        if messages is not None and "message" in attrs:
            raise serializers.ValidationError({"message": 'cannot be given together with "messages"'})
        for index, message in enumerate(messages or ()):
            if index and message["role"] == ChatRole.SYSTEM:
                raise serializers.ValidationError(
                    {f"messages[{index}].role": "may be system in the first message only"}
                )
        if messages and messages[-1]["role"] != ChatRole.USER:
            raise serializers.ValidationError(
                {f"messages[{len(messages) - 1}].role": "the last message must be a user's"}
            )
        if messages and "conversation_id" in attrs and len(messages) != 1:
            raise serializers.ValidationError({"messages": "with conversation_id, exactly one new user message"})
        return attrs


class CompletionBody(RunOptionsBody):
    prompt = fields.Text()


def chat_request(data: object) -> ChatRequest:
    """The typed chat request. Raises InvalidRequest with the field's path, NotFound for an id that cannot exist."""
    given = checked(ChatBody(data=data))
    options = _run_options(given)
    filters = source_filters(given)
    if "messages" in given:
        messages = given.pop("messages")
        given["messages"] = tuple(ChatMessage(ChatRole(item["role"]), item["content"]) for item in messages)
    if "context" in given:
        given["context"] = tuple(given["context"])
    if "strategy" in given:
        given["strategy"] = Strategy(given["strategy"])
    # Said as a lookup would say it: whether an id could exist is nobody's business.
    for name, what in (("conversation_id", "conversation"), ("replaces", "message")):
        if name in given and not isinstance(given[name], uuid.UUID):
            raise NotFound(f"no such {what}", field=name)
    # Only what was given: the defaults are ChatRequest's.
    return ChatRequest(**options, **given, filters=filters)


def completion_request(data: object) -> CompletionRequest:
    """The typed request for a raw completion. Raises InvalidRequest with the field's path."""
    given = checked(CompletionBody(data=data))
    return CompletionRequest(prompt=given.pop("prompt"), **_run_options(given))


def source_filters(given: dict[str, Any]) -> SourceFilters:
    """Takes the filters out of ``given``."""
    return SourceFilters(**{name: _as_tuple(given.pop(name)) for name in FILTERS if name in given})


def checked(body: Body) -> dict[str, Any]:
    """What the body holds. Raises InvalidRequest with the path of the first wrong field."""
    if not body.is_valid():
        raise invalid_request(body.errors)
    return dict(body.validated_data)


def _run_options(given: dict[str, Any]) -> dict[str, Any]:
    """Takes what both kinds of request share out of ``given``, as the dataclass wants it."""
    options = {name: _as_tuple(given.pop(name)) for name in RUN_OPTIONS if name in given}
    if "priority" in options:
        options["priority"] = PRIORITIES[options["priority"]]
    if options.get("seed") == RANDOM_SEED:
        del options["seed"]
    return options


def _as_tuple(value: Any) -> Any:  # noqa: ANN401
    return tuple(value) if isinstance(value, list) else value

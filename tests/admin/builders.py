"""Conversations, answers and operators as the tests of this room need them."""

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from chat.models import Conversation, Message, Retrieval
from inference.models import Generation

TIMINGS = {"queue": 20.0, "gpu_wait": 0.0, "prefill": 300.0, "first_token": 500.0, "decode": 2000.0}
SOURCE = {
    "label": "1",
    "kind": "transcript_segment",
    "title": "Weekly",
    "speaker": "Sarah",
    "time": "2026-11-17T10:03:00Z",
    "start_time": 723.4,
    "emotion": "calm",
    "score": 0.8123,
    "text": "We cannot make the first.",
    "doc_id": "9",
}


def conversation(owner: str = "local", *, title: str = "The deadline", **columns: object) -> Conversation:
    return Conversation.objects.create(**{"owner": owner, "title": title, **columns})


def add_question(to: Conversation, text: str = "When is the deadline?") -> Message:
    return Message.objects.create(conversation=to, position=to.messages.count(), role="user", content=text)


def add_answer(
    to: Conversation, text: str = "On the 14th [1].", *, total_secs: float = 3.0, **columns: object
) -> Message:
    """An ended answer, or one with ``status``."""
    values: dict[str, Any] = {
        "status": "complete",
        "finish_reason": "stop",
        "n_prompt_tokens": 1200,
        "n_cached_tokens": 800,
        "n_completion_tokens": 40,
        "model_name": "fake-it",
        "timings": TIMINGS,
        "devices": [{"device": "cpu", "tokens": 40}],
        "params": {"sampling": {"seed": 7, "temperature": 0.5}, "max_tokens": 64},
        **columns,
    }
    generation = Generation.objects.create(owner=to.owner, text=text, **values)
    if generation.is_ended:
        generation.finished_at = generation.created_at + timedelta(seconds=total_secs)
        generation.save(update_fields=["finished_at"])
    return Message.objects.create(
        conversation=to, position=to.messages.count(), role="assistant", generation=generation
    )


def unfinished(to: Conversation, status: str = "queued") -> Message:
    return add_answer(
        to, "", status=status, finish_reason="", timings={}, devices=[], queued_at=timezone.now(), n_completion_tokens=0
    )


def add_sources(to: Message, *sources: dict[str, Any], **columns: object) -> Retrieval:
    values: dict[str, Any] = {"query": "deadline", "n_hits": 7, "latency_ms": 84.2, **columns}
    return Retrieval.objects.create(message=to, sources=list(sources), **values)


def operator(*permissions: str) -> Client:
    """A signed-in browser: of a superuser, or of staff with just these permissions of the chat."""
    if not permissions:
        user = User.objects.create_superuser("operator")
    else:
        user = User.objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        assert user.user_permissions.count() == len(permissions)
    client = Client()
    client.force_login(user)
    return client


def page_of(to: Conversation) -> str:
    return f"/admin/chat/conversation/{to.pk}/change/"

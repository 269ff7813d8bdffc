"""Conversations, their messages, and what memories each answer was given.

An answer's text, usage and state live in its generation and are read through: nothing is copied.
"""

import uuid

from django.db import models

from chat.querysets import ConversationQuerySet, MessageQuerySet
from inference.models import Generation, Status


class Conversation(models.Model):
    """A stored chat of one owner. An empty ``system_prompt`` means the installation's default."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.CharField(max_length=64)
    title = models.CharField(max_length=200, blank=True, default="")
    system_prompt = models.TextField(blank=True, default="")
    summary = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at"]
        indexes = [models.Index(fields=["owner", "-updated_at"], name="conversation_owner_updated")]

    def __str__(self) -> str:
        return self.title or str(self.id)


class Role(models.TextChoices):
    USER = "user"
    ASSISTANT = "assistant"


class Message(models.Model):
    """One message. ``position`` counts from 0 within the conversation.

    ``content`` is what a person or program sent; an answer made here has none of its own and reads its
    generation's text. ``rendered`` (int32 token ids) is what a user message added to the prompt, from the end of the
    message before to where the answer begins; an answer needs none while its generation's output is of the format
    that ``rendered_with`` names. Both count only while ``rendered_with`` is the key in use (``chat/history.py``).
    ``history_digest`` of a user message covers the system prompt and all user messages up to this one.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    position = models.PositiveIntegerField()
    role = models.CharField(max_length=10, choices=Role.choices)
    content = models.TextField(blank=True, default="")
    generation = models.OneToOneField(
        Generation, on_delete=models.SET_NULL, null=True, blank=True, related_name="message"
    )
    rendered = models.BinaryField(default=b"", blank=True)
    rendered_with = models.CharField(max_length=64, blank=True, default="")
    history_digest = models.CharField(max_length=64, blank=True, default="", db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["conversation", "position"]
        constraints = [models.UniqueConstraint(fields=["conversation", "position"], name="message_position")]

    def __str__(self) -> str:
        return f"{self.role}: {self.text[:60]}"

    @property
    def text(self) -> str:
        return self.generation.text if self.generation else self.content

    @property
    def status(self) -> str:
        return self.generation.status if self.generation else Status.COMPLETE


class Retrieval(models.Model):
    """What was searched for one answer, what came back and what the model was shown.

    ``sources`` are the memories shown, labelled as in the prompt (wire format of an answer's ``sources``); ``hits``
    all that was found, best first, with the parts of their scores and the label of those shown. ``understood`` is
    what the words of the query said beside it, ``note`` what the search could not do. Which labels the answer names
    is known with its text (``generation.labels``).
    """

    message = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="retrieval")
    query = models.TextField(blank=True, default="")
    filters = models.JSONField(default=dict, blank=True)
    understood = models.JSONField(default=dict, blank=True)
    hits = models.JSONField(default=list, blank=True)
    sources = models.JSONField(default=list, blank=True)
    n_hits = models.PositiveIntegerField(default=0)
    latency_ms = models.FloatField(default=0.0)
    error = models.TextField(blank=True, default="")
    note = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{len(self.sources)} sources for {self.message_id}"

"""Conversations, their messages and summaries, and what memories each answer was given.

An answer's text, usage and state live in its generation and are read through: nothing is copied.
"""

import uuid

from django.db import models

from chat.enums import Strategy
from chat.querysets import ConversationQuerySet, MessageQuerySet, SummaryQuerySet
from inference.models import Generation, Status


class Conversation(models.Model):
    """A stored chat of one owner. An empty ``system_prompt`` means the installation's default."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.CharField(max_length=64)
    title = models.CharField(max_length=200, blank=True, default="")
    system_prompt = models.TextField(blank=True, default="")
    summary = models.TextField(blank=True, default="")  # the text of the version that counts
    strategy = models.CharField(
        max_length=12, choices=[(each.value, each.value) for each in Strategy], default="summarize"
    )
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
    that ``rendered_with`` names. Both count only while ``rendered_with`` is the key in use (``chat/history``).
    ``history_digest`` of a user message covers the system prompt and all user messages up to this one.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    position = models.PositiveIntegerField()
    role = models.CharField(max_length=10, choices=Role.choices)
    content = models.TextField(blank=True, default="")
    condensed = models.TextField(blank=True, default="")  # what the model reads if the content is beyond its context
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
    def shown(self) -> str:
        """As the model reads it."""
        return self.condensed or self.text

    @property
    def status(self) -> str:
        return self.generation.status if self.generation else Status.COMPLETE


class SummaryState(models.TextChoices):
    MAKING = "making"  # its generation waits, runs, or has ended and is about to be taken over
    MADE = "made"
    FAILED = "failed"  # ``error`` says why; the next long turn tries again


class Summary(models.Model):
    """What a conversation's oldest messages, up to ``covers_until`` (a position), have been folded into.

    The newest one made counts and contains those before it; the messages themselves stay. ``n_tokens`` is exact, of
    the text as the model reads it. While it is being made, ``text`` is what the parts read so far have come to and
    ``generation`` reads the next one.
    """

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="summaries")
    version = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=SummaryState.choices, default=SummaryState.MAKING)
    covers_until = models.PositiveIntegerField()
    text = models.TextField(blank=True, default="")
    n_tokens = models.PositiveIntegerField(default=0)
    generation = models.OneToOneField(
        Generation, on_delete=models.SET_NULL, null=True, blank=True, related_name="summary"
    )
    error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    made_at = models.DateTimeField(null=True, blank=True)

    objects = SummaryQuerySet.as_manager()

    class Meta:
        ordering = ["conversation", "-version"]
        verbose_name_plural = "summaries"
        constraints = [
            models.UniqueConstraint(fields=["conversation", "version"], name="summary_version"),
            # However many turns end at the same time, one summary of a conversation is made at a time.
            models.UniqueConstraint(fields=["conversation"], condition=models.Q(state="making"), name="summary_making"),
        ]

    def __str__(self) -> str:
        return f"version {self.version} of {self.conversation_id}"


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
        return self.query[:60] or f"sources of {self.message_id}"

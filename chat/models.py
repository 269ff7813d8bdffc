"""Conversations, messages, summaries, the retrieval of each answer; API keys, limits of groups; sums by hour and day.

Text, usage and state of an answer are columns of its generation, not copied here.
"""

import uuid

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.utils import timezone

from chat.enums import KeyScope, KeyState, Strategy, TitleSource
from chat.querysets import ApiKeyQuerySet, ConversationQuerySet, MessageQuerySet, SummaryQuerySet
from inference.models import Generation, Status
from inference.models.derived import DigestField, FoldedField


class Conversation(models.Model):
    """A stored chat of one owner. An empty ``system_prompt`` means the installation's default.

    A fork has the first ``forked_at`` messages of ``forked_from``. ``family`` is the id of the conversation that began
    its line of forks; None for one without forks.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.CharField(max_length=64)
    title = models.CharField(max_length=200, blank=True, default="")
    title_folded = FoldedField(source="title")
    title_source = models.CharField(
        max_length=8, choices=[(item.value, item.value) for item in TitleSource], default="words"
    )
    system_prompt = models.TextField(blank=True, default="")
    summary = models.TextField(blank=True, default="")  # text of the version in use
    strategy = models.CharField(
        max_length=12, choices=[(item.value, item.value) for item in Strategy], default="summarize"
    )
    keep = models.BooleanField(default=False)  # never deleted for its age (RETENTION_DAYS)
    archived = models.BooleanField(default=False)  # out of sight until it is continued or taken back
    recall = models.BooleanField(default=True)  # with ``summarize``: earlier messages are searched with each question
    n_indexed = models.PositiveIntegerField(default=0)  # messages from the first on that have their passages
    cache_epoch = models.PositiveIntegerField(default=0)  # raised when a text that its prompts hold is deleted
    family = models.UUIDField(null=True, blank=True)
    forked_from = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="forks")
    forked_at = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at"]
        indexes = [
            models.Index(fields=["owner", "-updated_at"], name="conversation_owner_updated"),
            models.Index(fields=["family", "-updated_at"], name="conversation_family_updated"),
            models.Index(fields=["-updated_at"], name="conversation_updated"),
        ]

    def __str__(self) -> str:
        return self.title or str(self.id)

    @property
    def cache_tag(self) -> str:
        """The owner of KV states that are computed for it now."""
        return f"{self.pk.hex}/{self.cache_epoch}"


class Role(models.TextChoices):
    USER = "user"
    ASSISTANT = "assistant"


class Message(models.Model):
    """A message. ``position`` counts from 0 within the conversation.

    ``content`` is the text that a client sent, ``content_thought`` the thought before it; for an answer of this service
    both are empty, and text and thought are those of the generation. ``rendered`` (int32 token ids) holds the tokens
    that a user message added to the prompt, from the end of the message before to the start of the answer; an answer
    needs none while the output of its generation is in the format of ``rendered_with``. Both are valid only while
    ``rendered_with`` is the key in use (``chat/prompting/context_window``). ``history_digest`` covers owner, system
    prompt and all messages up to this one; it is empty for a generated answer, which its generation finds.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    position = models.PositiveIntegerField()
    role = models.CharField(max_length=10, choices=Role.choices)
    content = models.TextField(blank=True, default="")
    content_folded = FoldedField(source="content")
    content_digest = DigestField(source="content")
    content_thought = models.TextField(blank=True, default="")
    condensed = models.TextField(blank=True, default="")  # read by the model in place of content beyond its context
    generation = models.OneToOneField(
        Generation, on_delete=models.SET_NULL, null=True, blank=True, related_name="message"
    )
    rendered = models.BinaryField(default=b"", blank=True)
    rendered_with = models.CharField(max_length=64, blank=True, default="")
    history_digest = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["conversation", "position"]
        constraints = [models.UniqueConstraint(fields=["conversation", "position"], name="message_position")]
        indexes = [
            models.Index(fields=["history_digest", "-created_at"], name="message_history"),
            # The order of the administration's list.
            models.Index(fields=["-created_at"], name="message_created"),
        ]

    def __str__(self) -> str:
        return f"{self.role}: {self.text[:60]}"

    @property
    def text(self) -> str:
        return self.generation.text if self.generation else self.content

    @property
    def thought(self) -> str:
        """The model's text before the answer that is no part of it."""
        return self.generation.thought if self.generation else self.content_thought

    @property
    def shown(self) -> str:
        """Text as the model reads it."""
        return self.condensed or self.text

    @property
    def status(self) -> str:
        return self.generation.status if self.generation else Status.COMPLETE


class MessagePassage(models.Model):
    """A part of a message's text by which later questions find it: the characters from ``start`` to ``end``.

    ``terms`` are its words as an index has them, ``context_terms`` those of what it replies to. ``embedding`` is a
    vector (float16) in ``encoding``; both are empty until the background thread has computed it.
    """

    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="passages")
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    terms = models.TextField(blank=True, default="")
    context_terms = models.TextField(blank=True, default="")
    embedding = models.BinaryField(default=b"", blank=True)
    encoding = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ["message", "start"]
        indexes = [models.Index(fields=["id"], condition=models.Q(encoding=""), name="message_passage_pending")]

    def __str__(self) -> str:
        return f"characters {self.start} to {self.end} of {self.message_id}"


class SummaryState(models.TextChoices):
    MAKING = "making"  # its generation waits, runs, or ended and was not processed yet
    MADE = "made"
    FAILED = "failed"  # reason in ``error``; the next long turn starts another


class Summary(models.Model):
    """A version of the rolling summary, which covers the messages up to the position ``covers_until``.

    The newest one made is in use and includes those before it; the messages themselves stay. ``n_tokens`` counts the
    text as the model reads it. In the state ``making``, ``text`` covers the pieces read so far and ``generation``
    reads the next one.
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
    note = models.TextField(blank=True, default="")  # which of its pieces are an extract, and why
    created_at = models.DateTimeField(auto_now_add=True)
    made_at = models.DateTimeField(null=True, blank=True)

    objects = SummaryQuerySet.as_manager()

    class Meta:
        ordering = ["conversation", "-version"]
        verbose_name_plural = "summaries"
        constraints = [
            models.UniqueConstraint(fields=["conversation", "version"], name="summary_version"),
            # Of turns that end concurrently one starts a summary.
            models.UniqueConstraint(fields=["conversation"], condition=models.Q(state="making"), name="summary_making"),
        ]

    def __str__(self) -> str:
        return f"version {self.version} of {self.conversation_id}"


class Retrieval(models.Model):
    """The retrieval for one answer: query, hits, and the sources shown to the model.

    ``sources`` are labelled as in the prompt (wire format of an answer's ``sources``); ``hits`` are all passages
    found, best first, with the parts of their scores and the label of those shown, and the best of those below the
    relevance threshold (``rejected``). ``understood`` holds the filters read from the query's words, ``note`` a
    limitation of this search. The labels that the answer cites are in ``generation.labels``.
    """

    message = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="retrieval")
    query = models.TextField(blank=True, default="")
    query_folded = FoldedField(source="query")
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
        indexes = [models.Index(fields=["-created_at"], name="retrieval_created")]

    def __str__(self) -> str:
        return self.query[:60] or f"sources of {self.message_id}"

    def copy_for(self, message: Message) -> "Retrieval":
        """Return an unsaved copy that belongs to ``message``, the copy of an answer in a fork."""
        names = ("query", "filters", "understood", "hits", "sources", "n_hits", "latency_ms", "error", "note")
        return Retrieval(message=message, **{name: getattr(self, name) for name in names})


class BulkDeletion(models.Model):
    """Conversations that an operator has deleted together, one after the other in the background.

    The first ``n_done`` of ``conversation_ids`` are deleted; the list is emptied at the end. With ``user_id`` that user
    goes last, with all other rows.
    """

    requested_by = models.CharField(max_length=150)
    conversation_ids = models.JSONField(default=list)
    user_id = models.PositiveBigIntegerField(null=True, blank=True)
    n_total = models.PositiveIntegerField()
    n_done = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = "deletion of conversations"
        verbose_name_plural = "deletions of conversations"

    def __str__(self) -> str:
        return f"{self.n_done} of {self.n_total} conversations deleted"


class ApiKey(models.Model):
    """A credential of one user for programs, with ``scopes`` (values of KeyScope).

    The key itself is shown when it is made and stored nowhere: ``prefix`` is its visible beginning, by which it is
    looked up, ``digest`` the SHA-256 of the whole. A revoked row remains for some time, for the record.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=24, unique=True)
    digest = models.CharField(max_length=64)
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    @property
    def state(self) -> KeyState:
        if self.revoked_at is not None:
            return KeyState.REVOKED
        return KeyState.ACTIVE if timezone.now() < self.expires_at else KeyState.EXPIRED

    @property
    def permissions(self) -> frozenset[KeyScope]:
        """The scopes; a value that this version does not know permits nothing."""
        return frozenset(scope for scope in KeyScope if scope.value in self.scopes)


def _limit(help_text: str) -> "models.PositiveBigIntegerField[int | None, int | None]":
    return models.PositiveBigIntegerField(null=True, blank=True, help_text=f"{help_text}; 0: no limit")


class GroupLimits(models.Model):
    """Limits for the users of a group, in place of the LIMIT_ settings; empty: the setting.

    Of several groups of a user the largest value counts.
    """

    group = models.OneToOneField(Group, on_delete=models.CASCADE, related_name="limits")
    requests_per_minute = _limit("requests within a minute")
    tokens_per_minute = _limit("tokens of prompts and answers within a minute")
    tokens_per_day = _limit("tokens of prompts and answers of a day (UTC)")
    answers_at_once = _limit("answers that wait or run")
    conversations = _limit("stored conversations")
    memories = _limit("stored notes and lines of transcripts")

    class Meta:
        verbose_name = verbose_name_plural = "limits"

    def __str__(self) -> str:
        return f"limits of {self.group}"


class Span(models.TextChoices):
    HOUR = "hour"
    DAY = "day"


class Rollup(models.Model):
    """Sums over one hour, or over one day of GEMMA_TIME_ZONE, that remain when the rows behind them are deleted.

    ``figures`` holds numbers, and groups of numbers by name (``chat/services/rollups``): no text, and no key of a user.
    """

    span = models.CharField(max_length=4, choices=Span.choices)
    starts_at = models.DateTimeField()
    kind = models.CharField(max_length=12)
    figures = models.JSONField(default=dict)

    class Meta:
        ordering = ["-starts_at", "kind"]
        constraints = [models.UniqueConstraint(fields=["span", "starts_at", "kind"], name="rollup_span_start_kind")]

    def __str__(self) -> str:
        return f"{self.kind} of the {self.span} {self.starts_at:%Y-%m-%d %H:%M}"


class RollupProgress(models.Model):
    """The one row that says what the rollups hold: rows up to the moment ``until``, hand-overs up to an id."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    until = models.DateTimeField(null=True)
    hand_over_id = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="rollup_progress_one_row")]

    def __str__(self) -> str:
        return f"until {self.until}"

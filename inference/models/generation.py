"""The generation: one run of the model for one assistant message. Its row is authoritative.

Knows nothing of conversations, HTTP or Redis. Columns a worker owns (claim, result) are written only under
its ``claim_epoch``.
"""

import uuid
from bisect import bisect_left

from django.db import models

from inference.enums import ENDED, FinishReason, Priority, Status
from inference.models.derived import DigestField, FoldedField
from inference.models.querysets import GenerationQuerySet
from inference.token_ids import pack, unpack


class Generation(models.Model):
    """A run of the model.

    ``prompt`` and ``output`` hold token ids (int32, little-endian). The prompt is cleared when the generation ends; the
    caller stores the rendered turn. ``text_ends`` (int32 likewise) has for each emitted token the length of ``text``
    released with it, so that a late reader gets the same pieces as from the token log. ``thought`` is the model's text
    that is no part of the answer, with ``thought_ends`` likewise; ``logprobs`` are those of the tokens, when the
    request asked for them (``pack_logprobs``). ``labels`` are the citation labels in ``text`` when they were checked,
    for queries. ``details`` belongs to the caller; only the id of the creating request in it is read here
    (``log_context``). ``dialogue_digest``, of the dialogue up to the question, and ``dialogue_continued`` are the
    caller's, too: with ``text_digest`` they find an answer. ``prepare_task`` names the Celery task that builds the
    prompt when the process that should have built it is gone. ``follow_up_task`` names the task that follows the end:
    an outbox with one place, which that task empties in the transaction of its work; until then the reaper repeats it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.CharField(max_length=64)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.QUEUED)
    priority = models.PositiveSmallIntegerField(choices=Priority.choices, default=Priority.INTERACTIVE)
    params = models.JSONField(default=dict)
    session_id = models.CharField(max_length=128, blank=True, default="")
    timeout_secs = models.FloatField(null=True, blank=True)
    details = models.JSONField(default=dict, blank=True, db_column="annex")
    prepare_task = models.CharField(max_length=128, blank=True, default="")
    follow_up_task = models.CharField(max_length=128, blank=True, default="")
    ephemeral = models.BooleanField(default=False)
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    request_digest = models.CharField(max_length=64, blank=True, default="")

    prompt = models.BinaryField(default=b"", blank=True)
    output = models.BinaryField(default=b"", blank=True)
    text = models.TextField(blank=True, default="")
    text_folded = FoldedField(source="text")
    text_digest = DigestField(source="text")
    dialogue_digest = models.CharField(max_length=64, blank=True, default="")
    dialogue_continued = models.BooleanField(default=False)
    text_ends = models.BinaryField(default=b"", blank=True)
    thought = models.TextField(blank=True, default="")
    thought_ends = models.BinaryField(default=b"", blank=True)
    logprobs = models.BinaryField(default=b"", blank=True)
    labels = models.JSONField(default=list, blank=True)
    n_prompt_tokens = models.PositiveIntegerField(default=0)
    n_cached_tokens = models.PositiveIntegerField(default=0)
    n_completion_tokens = models.PositiveIntegerField(default=0)
    finish_reason = models.CharField(max_length=12, choices=FinishReason.choices, blank=True, default="")
    error_code = models.CharField(max_length=64, blank=True, default="")
    error_message = models.TextField(blank=True, default="")
    model_name = models.CharField(max_length=128, blank=True, default="")
    timings = models.JSONField(default=dict, blank=True)  # stage -> ms
    devices = models.JSONField(default=list, blank=True)  # [{"device": "cpu", "tokens": 12}, ...] in order

    worker = models.CharField(max_length=128, blank=True, default="")
    attempt = models.PositiveSmallIntegerField(default=0)
    claim_epoch = models.PositiveBigIntegerField(default=0)
    heartbeat = models.PositiveBigIntegerField(default=0)
    cancel_requested = models.BooleanField(default=False)

    created_at = models.DateTimeField(auto_now_add=True)
    queued_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)  # timeout_secs after it was queued
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = GenerationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["owner", "idempotency_key"], name="generation_idempotency_key"),
            models.CheckConstraint(condition=models.Q(priority__in=[1, 2]), name="generation_priority_known"),
        ]
        indexes = [
            # Covers the three queries of a claim: owners that wait, their oldest row, and how many of theirs run.
            models.Index(fields=["status", "owner", "queued_at", "priority"], name="generation_queue"),
            models.Index(fields=["owner", "-started_at"], name="generation_owner_started"),
            models.Index(fields=["status", "deadline_at"], name="generation_deadline"),
            models.Index(fields=["ephemeral", "finished_at"], name="generation_ephemeral"),
            # The order of the administration's list, and of one that is filtered by status.
            models.Index(fields=["-created_at"], name="generation_created"),
            models.Index(fields=["status", "-created_at"], name="generation_status_created"),
            models.Index(
                fields=["dialogue_digest", "text_digest", "dialogue_continued", "-created_at"],
                name="generation_dialogue",
            ),
            # Partial: few rows have a follow-up.
            models.Index(fields=["status"], name="generation_follow_up", condition=~models.Q(follow_up_task="")),
        ]

    def __str__(self) -> str:
        return f"{str(self.id)[:8]}, {self.get_status_display().lower()}"

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED

    @property
    def prompt_ids(self) -> list[int]:
        return unpack(self.prompt)

    @prompt_ids.setter
    def prompt_ids(self, token_ids: list[int]) -> None:
        self.prompt = pack(token_ids)
        self.n_prompt_tokens = len(token_ids)

    @property
    def output_ids(self) -> list[int]:
        return unpack(self.output)

    @property
    def n_thought_tokens(self) -> int:
        """The number of tokens up to the end of the thought."""
        ends = unpack(self.thought_ends)
        if not self.text:
            return len(ends)
        return bisect_left(ends, ends[-1]) + 1 if ends else 0

    @property
    def device(self) -> str:
        """The device of the last token; empty before the first."""
        return self.devices[-1]["device"] if self.devices else ""

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.n_prompt_tokens,
            "completion_tokens": self.n_completion_tokens,
            "total_tokens": self.n_prompt_tokens + self.n_completion_tokens,
            "cached_tokens": self.n_cached_tokens,
        }

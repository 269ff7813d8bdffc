"""Enumerations of a generation: its status, its state in a stream, its priority, its finish reason.

A module of its own, because the querysets and the model both import them.
"""

from enum import StrEnum

from django.db import models


class Status(models.TextChoices):
    """Moves run downwards only, except for a take-over or a released claim (running -> queued)."""

    PREPARING = "preparing"  # stored; passages are retrieved and the prompt is built
    QUEUED = "queued"  # has its prompt; waits for a claim
    RUNNING = "running"  # claimed by a worker that raises its heartbeat counter
    COMPLETE = "complete"  # ended by the model or by max_tokens
    INTERRUPTED = "interrupted"  # ended by a cancel or its deadline; the text so far is kept
    FAILED = "failed"  # ended by the error in error_code and error_message


WAITING = (Status.PREPARING, Status.QUEUED)
UNFINISHED = (*WAITING, Status.RUNNING)
ENDED = (Status.COMPLETE, Status.INTERRUPTED, Status.FAILED)


class StreamState(StrEnum):
    """The step that a generation waits for or works at, as its stream reports it between tokens."""

    QUEUED = "queued"  # waits for a worker, or for a slot among the running answers
    RETRIEVING = "retrieving"  # passages are retrieved
    WAITING_FOR_GPU = "waiting_for_gpu"  # the GPU was requested; meanwhile the CPU computes
    LOADING = "loading"  # a runner is being started
    SUMMARIZING = "summarizing"  # a message longer than the context is read in parts
    PREFILL = "prefill"  # the prompt is being computed
    YIELDING = "yielding"  # the answer moves to another device or process


class Priority(models.IntegerChoices):
    INTERACTIVE = 1
    BATCH = 2


class FinishReason(models.TextChoices):
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"

"""Closed sets of values of a generation: its status, its state in a stream, its priority, how it ended.

A module of its own, so that the queries and the model can both name them.
"""

from enum import StrEnum

from django.db import models


class Status(models.TextChoices):
    """Where a generation is. Moves run downwards only, but for a take-over (running -> queued)."""

    PREPARING = "preparing"  # stored; its memories are being retrieved, its prompt is not built yet
    QUEUED = "queued"  # the prompt is there; waits for a worker to claim it
    RUNNING = "running"  # claimed by a worker, whose heartbeat counter moves
    COMPLETE = "complete"  # ended by itself: stop or length
    INTERRUPTED = "interrupted"  # ended by its client or its deadline; the text so far is kept
    FAILED = "failed"  # ended by an error; error_code and error_message say which


WAITING = (Status.PREPARING, Status.QUEUED)
ENDED = (Status.COMPLETE, Status.INTERRUPTED, Status.FAILED)


class StreamState(StrEnum):
    """The step that a generation waits for or works at, as its stream reports it between tokens."""

    QUEUED = "queued"  # waits for a worker, or for room among the running answers
    RETRIEVING = "retrieving"  # memories are searched
    WAITING_FOR_GPU = "waiting_for_gpu"  # the GPU was requested; meanwhile the CPU computes
    LOADING = "loading"  # a model process is being started
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

"""Errors of the generation service.

InferenceError
|- AdmissionRefused    nothing was stored
|  |- QueueFull        the queue of the service is full
|  |- CallerLimit      the queue of this caller is full
|- KeyReused           the Idempotency-Key belongs to another request
|- KeyTaken            a simultaneous request stored the same Idempotency-Key first
|- AlreadyEnded        too late to cancel
|- StoreUnavailable    Redis or the database does not answer
|- ModelUnavailable    the model file cannot be used
|  |- TooLittleMemory  the model with its context does not fit into RAM or GPU memory
|- GpuBusy             another process of this machine uses the GPU
|- GpuUnavailable      the GPU's driver does not answer
|- ServiceTokenRefused another service's token is not accepted
"""


class InferenceError(Exception):
    """Base of this package's errors. Programs compare ``code``; a retry may succeed after ``retry_after_secs``."""

    code = "inference_error"
    retry_after_secs: int | None = None


class AdmissionRefused(InferenceError):
    """The request was not accepted and nothing of it was stored."""

    code = "refused"


class QueueFull(AdmissionRefused):
    """The queue of the whole service is at ``QUEUE_MAX``."""

    code = "queue_full"

    def __init__(self, depth: int, retry_after_secs: int) -> None:
        super().__init__(f"The queue is full: {depth} requests are waiting. Try again in about {retry_after_secs} s.")
        self.retry_after_secs = retry_after_secs


class CallerLimit(AdmissionRefused):
    """The caller has ``QUEUE_MAX_PER_CALLER`` requests waiting or running."""

    code = "caller_limit"

    def __init__(self, depth: int, retry_after_secs: int) -> None:
        super().__init__(f"You have {depth} requests waiting or running. Try again when some of them have ended.")
        self.retry_after_secs = retry_after_secs


class KeyReused(InferenceError):
    """The Idempotency-Key was stored with another body."""

    code = "idempotency_key_reused"


class KeyTaken(InferenceError):
    """A simultaneous request with the same Idempotency-Key came first; ``find_by_key`` returns its generation."""

    code = "idempotency_key_taken"


class AlreadyEnded(InferenceError):
    """The generation has ended; there is nothing to cancel."""

    code = "already_ended"


class StoreUnavailable(InferenceError):
    """Redis or the database does not answer; no data is known to be lost."""

    code = "store_unavailable"
    retry_after_secs = 5


class ModelUnavailable(InferenceError):
    """The model file is missing or unusable in this process."""

    code = "model_unavailable"
    retry_after_secs = 30


class TooLittleMemory(ModelUnavailable):
    """The requested context does not fit; the message names sizes that do."""

    code = "too_little_memory"


class GpuBusy(InferenceError):
    """The lease is ours, but another process holds the GPU's lock: one that is ending, or another installation's."""

    code = "gpu_busy"


class GpuUnavailable(InferenceError):
    """The GPU's driver does not answer, so that the use of its memory is unknown."""

    code = "card_unavailable"


class ServiceTokenRefused(InferenceError):
    """Another service's token is invalid, expired, used before, or from a service without permission."""

    code = "service_token_refused"

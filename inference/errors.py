"""What can go wrong on the way of a generation.

InferenceError
|- Refused             nothing was stored
|  |- QueueFull        the whole service has too much to do
|  |- CallerLimit      this caller has too much queued
|- KeyReused           the Idempotency-Key belongs to another request
|- KeyTaken            the same request was stored a moment ago by somebody faster
|- AlreadyEnded        too late to cancel
|- StoreUnavailable    Redis or the database does not answer
|- ModelUnavailable    the model file cannot be used
|  |- TooLittleMemory  the model with its context does not fit into RAM or onto the card
|- GpuBusy             another process of this machine uses the card
|- GpuUnavailable     the card's driver does not answer
|- ServiceTokenRefused another service's token is not good here
"""


class InferenceError(Exception):
    """Base of this package's errors; ``code`` is what programs compare, ``retry_after_secs`` when to try again."""

    code = "inference_error"
    retry_after_secs: int | None = None


class AdmissionRefused(InferenceError):
    """The request was not accepted and left no trace."""

    code = "refused"


class QueueFull(AdmissionRefused):
    """The queue of the whole service is at ``QUEUE_MAX``."""

    code = "queue_full"

    def __init__(self, depth: int, retry_after_secs: int) -> None:
        super().__init__(f"{depth} requests are waiting already; try again in about {retry_after_secs} s")
        self.retry_after_secs = retry_after_secs


class CallerLimit(AdmissionRefused):
    """One caller has ``QUEUE_MAX_PER_CALLER`` requests waiting or running."""

    code = "caller_limit"

    def __init__(self, depth: int, retry_after_secs: int) -> None:
        super().__init__(f"you have {depth} requests waiting or running already; wait for some to end")
        self.retry_after_secs = retry_after_secs


class KeyReused(InferenceError):
    """The same Idempotency-Key came with another body."""

    code = "idempotency_key_reused"


class KeyTaken(InferenceError):
    """A simultaneous request with the same Idempotency-Key was faster; ``find_by_key`` finds its generation."""

    code = "idempotency_key_taken"


class AlreadyEnded(InferenceError):
    """The generation is over; there is nothing to cancel."""

    code = "already_ended"


class StoreUnavailable(InferenceError):
    """Redis or the database does not answer; nothing is known to have been lost."""

    code = "store_unavailable"
    retry_after_secs = 5


class ModelUnavailable(InferenceError):
    """The model file is missing or unusable in this process."""

    code = "model_unavailable"
    retry_after_secs = 30


class TooLittleMemory(ModelUnavailable):
    """The wanted context does not fit; the message names the sizes that would."""

    code = "too_little_memory"


class GpuBusy(InferenceError):
    """The lease is ours, but the card's lock is somebody else's: a process that is ending, or one beside us."""

    code = "gpu_busy"


class GpuUnavailable(InferenceError):
    """The card's driver does not answer, so that nobody can say what its memory holds."""

    code = "card_unavailable"


class ServiceTokenRefused(InferenceError):
    """Another service's token is wrong, expired, used before or of a service that may not call."""

    code = "service_token_refused"

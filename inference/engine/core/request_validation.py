"""What a runner refuses to begin: sequences that can never run in it, or would hurt the others. Knows no state."""

from inference.engine.protocol.frames import Submit
from inference.engine.sampling.logprobs import MAX_ALTERNATIVES


def refusal(submit: Submit, *, n_vocabulary: int, n_cells: int) -> tuple[str, str] | None:
    """Code and message of why the sequence can never run here, or ``None``."""
    tokens = submit.prompt + submit.emitted
    n_logprobs = submit.params.n_logprobs
    if not submit.prompt:
        return "empty_prompt", "a prompt needs at least one token"
    if len(tokens) >= n_cells:
        return "context_overflow", f"{len(tokens)} tokens do not fit a context of {n_cells}"
    # An id out of range would fail the whole batch, and everybody in it.
    if min(tokens) < 0 or max(tokens) >= n_vocabulary:
        return "invalid_token", f"a token id is not among the {n_vocabulary} of the vocabulary"
    if any(not 0 <= token < n_vocabulary for token in submit.params.sampling.logit_bias):
        return "invalid_logit_bias", f"logit_bias names a token id beyond the {n_vocabulary} of the vocabulary"
    if not 0 <= n_logprobs <= MAX_ALTERNATIVES:
        return "invalid_logprobs", f"n_logprobs is {n_logprobs}; it must be from 0 to {MAX_ALTERNATIVES}"
    return None

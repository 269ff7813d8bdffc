"""Validation of Submit frames: sequences that can never run in this runner, or would fail the others. Stateless."""

from inference.engine.protocol.frames import Rejected, Submit
from inference.engine.sampling.logprob_records import MAX_ALTERNATIVES


def rejection(submit: Submit, *, n_vocabulary: int, n_cells: int) -> Rejected | None:
    """Return the answer to a sequence that can never run here, or ``None`` for a valid one."""
    tokens = submit.prompt + submit.emitted
    n_logprobs = submit.params.n_logprobs
    if not submit.prompt:
        problem = "empty_prompt", "a prompt needs at least one token"
    elif len(tokens) >= n_cells:
        problem = "context_overflow", f"{len(tokens)} tokens do not fit a context of {n_cells}"
    # An id out of range would fail the whole batch, with every sequence in it.
    elif min(tokens) < 0 or max(tokens) >= n_vocabulary:
        problem = "invalid_token", f"a token id is not among the {n_vocabulary} of the vocabulary"
    elif any(not 0 <= token < n_vocabulary for token in submit.params.sampling.logit_bias):
        problem = "invalid_logit_bias", f"logit_bias names a token id beyond the {n_vocabulary} of the vocabulary"
    elif not 0 <= n_logprobs <= MAX_ALTERNATIVES:
        problem = "invalid_logprobs", f"n_logprobs is {n_logprobs}; it must be from 0 to {MAX_ALTERNATIVES}"
    else:
        return None
    return Rejected(submit.sequence_id, *problem)

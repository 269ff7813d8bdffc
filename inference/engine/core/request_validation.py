"""Validation of Submit frames: sequences that can never run in this runner, or would fail the others. Stateless."""

from inference.engine.protocol.frames import Rejected, Submit
from inference.engine.sampling.logprobs import MAX_ALTERNATIVES


def rejection(submit: Submit, *, n_vocabulary: int, n_cells: int) -> Rejected | None:
    """Return the answer to a sequence that can never run here, or ``None`` for a valid one."""
    problem = _problem(submit, n_vocabulary, n_cells)
    return None if problem is None else Rejected(submit.sequence_id, *problem)


def _problem(submit: Submit, n_vocabulary: int, n_cells: int) -> tuple[str, str] | None:
    tokens = submit.prompt + submit.emitted
    n_logprobs = submit.params.n_logprobs
    if not submit.prompt:
        return "empty_prompt", "a prompt needs at least one token"
    if len(tokens) >= n_cells:
        return "context_overflow", f"{len(tokens)} tokens do not fit a context of {n_cells}"
    # An id out of range would fail the whole batch, with every sequence in it.
    if min(tokens) < 0 or max(tokens) >= n_vocabulary:
        return "invalid_token", f"a token id is not among the {n_vocabulary} of the vocabulary"
    if any(not 0 <= token < n_vocabulary for token in submit.params.sampling.logit_bias):
        return "invalid_logit_bias", f"logit_bias names a token id beyond the {n_vocabulary} of the vocabulary"
    if not 0 <= n_logprobs <= MAX_ALTERNATIVES:
        return "invalid_logprobs", f"n_logprobs is {n_logprobs}; it must be from 0 to {MAX_ALTERNATIVES}"
    return None

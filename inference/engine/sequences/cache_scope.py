"""KV states that a sequence may reuse: all of its own caller's, and of others the installation's own text alone.

A state that a caller could probe would tell, by ``cached_tokens`` and by time, how another caller's text begins.
"""

from dataclasses import dataclass

SHARED = "*"  # caller of states that hold nothing but the installation's own text


@dataclass(frozen=True, slots=True)
class CacheScope:
    """``caller`` is opaque and never chosen by a client. The first ``n_shared`` tokens of the prompt are the
    installation's own text: its system prompt, and the frame that the chat format puts around it."""

    caller: str = ""
    n_shared: int = 0

    def caller_of(self, n_tokens: int) -> str:
        """Return the caller to whom a state of the first ``n_tokens`` belongs."""
        return SHARED if n_tokens <= self.n_shared else self.caller

    def n_reusable(self, caller: str, n_common: int) -> int:
        """Return how many of ``n_common`` tokens may be reused from a state that belongs to ``caller``."""
        return n_common if caller == self.caller else min(n_common, self.n_shared)


NO_SCOPE = CacheScope()

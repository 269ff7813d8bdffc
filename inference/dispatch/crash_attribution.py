"""Which sequence kills the runner: bookkeeping over the lives that were in it. Knows no processes.

A death is blamed on the sequences that the runner had not yet proven it can compute, or on all in it if it had.
After two blames a sequence is a suspect: suspects are given to the runner one at a time, with nothing else unproven
beside them, until they produce a token and are cleared, or have three blames and are the culprit.
"""

from collections.abc import Iterable

from inference.dispatch.generation_state import Live

SUSPECT_AT = 2
CULPRIT_AT = 3
# One that clears itself each time with a token and kills the runner later is not tried for ever.
CULPRIT_AT_TOTAL = 10


def blame(lives: Iterable[Live]) -> list[Live]:
    """Note a runner's death on those of ``lives`` who may have caused it; returns the culprits."""
    inside = [live for live in lives if live.is_in_runner]
    blamed = [live for live in inside if not live.is_proven] or inside
    for live in blamed:
        live.blames += 1
        live.total_blames += 1
    return [live for live in blamed if live.blames >= CULPRIT_AT or live.total_blames >= CULPRIT_AT_TOTAL]


def clear(live: Live) -> None:
    """It has produced a token: what killed the runner before was not this one, as far as it got."""
    live.blames = 0


def admissible(lives: Iterable[Live]) -> list[Live]:
    """Those of ``lives``, in order, that may be given to the runner now."""
    everyone = list(lives)
    suspects = [live for live in everyone if live.blames >= SUSPECT_AT and not live.is_proven]
    if not suspects:
        return [live for live in everyone if not live.is_in_runner]
    if any(live.is_in_runner and not live.is_proven for live in everyone):
        return []
    return suspects[:1]

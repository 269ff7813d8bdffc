"""Which sequence kills the runner: bookkeeping over the generations that were in it. Knows no processes.

A death is blamed on the sequences that the runner had not yet proven it can compute, or on all in it if it had.
After two blames a sequence is a suspect: suspects are given to the runner one at a time, with nothing else unproven
beside them, until they produce a token and are cleared, or have three blames and are the culprit.
"""

from collections.abc import Iterable

from inference.dispatch.generation_state import ActiveGeneration

SUSPECT_AT = 2
CULPRIT_AT = 3
# One that clears itself each time with a token and kills the runner later is not tried for ever.
CULPRIT_AT_TOTAL = 10


def blame(generations: Iterable[ActiveGeneration]) -> list[ActiveGeneration]:
    """Note a runner's death on those of ``lives`` who may have caused it; returns the culprits."""
    inside = [generation for generation in generations if generation.is_in_runner]
    blamed = [generation for generation in inside if not generation.is_proven] or inside
    for generation in blamed:
        generation.blames += 1
        generation.total_blames += 1
    return [
        generation
        for generation in blamed
        if generation.blames >= CULPRIT_AT or generation.total_blames >= CULPRIT_AT_TOTAL
    ]


def clear(generation: ActiveGeneration) -> None:
    """It has produced a token: what killed the runner before was not this one, as far as it got."""
    generation.blames = 0


def admissible(generations: Iterable[ActiveGeneration]) -> list[ActiveGeneration]:
    """Those of ``lives``, in order, that may be given to the runner now."""
    everyone = list(generations)
    suspects = [generation for generation in everyone if generation.blames >= SUSPECT_AT and not generation.is_proven]
    if not suspects:
        return [generation for generation in everyone if not generation.is_in_runner]
    if any(generation.is_in_runner and not generation.is_proven for generation in everyone):
        return []
    return suspects[:1]
